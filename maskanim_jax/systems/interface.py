"""What must a system (Perturbed Masks, FOMM, yours) be able to do?

Training, reconstruction, animation and the report know a system only by this interface; nothing else asks "which model?". Every
method is pure: arrays in, arrays out, randomness from the key it is given, so that all of them can be jitted and sharded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import optax

PyTree = Any
Outputs = dict[str, jax.Array]
"""Named pictures of one batch: (N, H, W, 1 or 3) float32 in [0, 1]."""


class Variables(NamedTuple):
    """What a system learns: trained parameters and batch statistics, each a dict by network name."""

    params: dict[str, PyTree]
    stats: dict[str, PyTree]


SCHEDULED = ("temperature",)
"""Names of statistics that a system sets anew in each step: a run that starts from another's networks does not take them."""


class Gradients(NamedTuple):
    """What one training step computes: gradients like `params`, the new batch statistics, scalars for the log."""

    grads: dict[str, PyTree]
    stats: dict[str, PyTree]
    metrics: dict[str, jax.Array]


class System(Protocol):
    """One animation method. Frames are (N, S, S, 3) float32 RGB in [0, 1], S = `frame_size`."""

    name: str
    frame_size: int
    result: str
    """Name of the picture that is the answer (Perturbed Masks: "fine")."""
    output_names: Sequence[str]
    """Names of the intermediate pictures, in the order in which they are shown."""
    mask_output: str | None
    """Name of the picture that carries the driver's pose, if there is one: reconstruction measures whether it is alive."""
    variants: Mapping[str, Mapping[str, str]]
    """Ways to animate that are compared with one another where the truth is known: a name to the options given; the first is the method itself."""

    def init(self, key: jax.Array) -> Variables:
        """Fresh variables; run it under jit to place them on a mesh."""
        ...

    def optimizer(self, steps_per_epoch: int) -> optax.GradientTransformation:
        """The optimiser of all networks, learning rates and schedule included."""
        ...

    def learning_rates(self, step: int, steps_per_epoch: int) -> dict[str, float]:
        """The learning rate that each network has at this step, for the log."""
        ...

    def gradients(
        self,
        variables: Variables,
        frozen: PyTree,
        source: jax.Array,
        driving: jax.Array,
        key: jax.Array,
        step: jax.Array,
        steps_per_epoch: int,
    ) -> Gradients:
        """Losses and their gradients for one batch of raw pairs; augmentation happens in here. `frozen` holds VGG-19's weights."""
        ...

    def reconstruct(self, variables: Variables, source: jax.Array, driving: jax.Array) -> Outputs:
        """Same-identity reconstruction of `driving` from `source` (batch to batch), as the paper's Table 1 needs it."""
        ...

    def animation_options(self, given: Mapping[str, str]) -> Any:
        """Checks the options that the user gave (threshold, mask_scale, ablation, motion, ...); returns a hashable value.

        Raises UserError for an option that this system does not have or a value that it cannot take.
        """
        ...

    def for_inference(self, variables: Variables) -> Variables:
        """Variables that `reconstruct` and the animation take instead, to the same result with fewer operations: batch norms folded."""
        ...

    def encode_source(self, variables: Variables, source: jax.Array, first_driving: jax.Array) -> PyTree:
        """What is computed once per video: `source` and `first_driving` are (1, S, S, 3)."""
        ...

    def animate(
        self, variables: Variables, source_state: PyTree, driving: jax.Array, options: Any, pose: PyTree | None = None
    ) -> Outputs:
        """Animates the source of `source_state` by a batch of driving frames; holds every picture of `output_names`.

        `pose` is what `pose` gave for these frames, smoothed over time; without it frames stand for themselves. A system whose options
        have no `smooth` is never given one.
        """
        ...

    def pose(self, variables: Variables, driving: jax.Array) -> PyTree:
        """What `animate` takes from driving frames, a tree of (N, ...): masks, keypoints. Averages of it are poses, too.

        Only systems whose options have a `smooth` need it.
        """
        ...

    def warnings(self, source_state: PyTree, options: Any) -> list[str]:
        """What a user should know before this video is made, a sentence each; `source_state` was fetched to the host or can be."""
        ...

    def pose_distance(self, variables: Variables, source: jax.Array, driving: jax.Array) -> jax.Array:
        """How far the pose of each driving frame is from the source's: (1, S, S, 3), (N, S, S, 3) to (N,) float32.

        Whatever place and size, if the system can tell them from the pose; only the order of the numbers means anything.
        """
        ...

    def outputs(self, variables: Variables, source: jax.Array, driving: jax.Array, key: jax.Array) -> Outputs:
        """Every picture of `output_names` for a batch of training pairs, in evaluation mode, to look at while training."""
        ...

    def collapse_warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """Sentences about what goes wrong, from the metrics of a step; empty when all is well."""
        ...

    def shape_settings(self) -> dict[str, Any]:
        """The settings that decide which tensors there are and their shapes, by name; told when networks of another run don't fit."""
        ...

    def paper_deviations(self) -> list[str]:
        """Where the config departs from the paper, a sentence each; log and report repeat them."""
        ...
