"""What must a system (Perturbed Masks, FOMM, or your own) implement?

Training, reconstruction, animation and the report use a system only through this interface; no
other code asks which model it is. Every method that computes is pure: arrays in, arrays out,
randomness from the given key. All of them can therefore be jitted and sharded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import optax

PyTree = Any
Outputs = dict[str, jax.Array]
"""Named images of one batch: (N, H, W, 1 or 3) float32 in [0, 1]."""


class Variables(NamedTuple):
    """A system's parameters and batch statistics, each a dict by network name."""

    params: dict[str, PyTree]
    stats: dict[str, PyTree]


SCHEDULED = ("temperature",)
"""Statistics that a system recomputes in every step; `config.init_from` does not copy them."""


class Gradients(NamedTuple):
    """Result of one training step: gradients (a tree like `params`), new batch statistics, scalar
    metrics.
    """

    grads: dict[str, PyTree]
    stats: dict[str, PyTree]
    metrics: dict[str, jax.Array]


class System(Protocol):
    """One animation method. Frames are (N, S, S, 3) float32 RGB in [0, 1], S = `frame_size`."""

    name: str
    frame_size: int
    result: str
    """Name of the output that is the final result (Perturbed Masks: "fine")."""
    output_names: Sequence[str]
    """Names of all outputs, in the order in which strips show them."""
    mask_output: str | None
    """Name of the output that encodes the driver's pose, or None; reconstruction checks it for mask
    collapse.
    """
    variants: Mapping[str, Mapping[str, str]]
    """Options of each variant that the cross-identity evaluation compares; the first is the method
    itself.
    """

    def init(self, key: jax.Array) -> Variables:
        """Randomly initialised variables; run it under jit to place them on a mesh."""
        ...

    def optimizer(self, steps_per_epoch: int) -> optax.GradientTransformation:
        """The optimiser of all networks, including learning rates and schedule."""
        ...

    def learning_rates(self, step: int, steps_per_epoch: int) -> dict[str, float]:
        """The learning rate of each network at this step, for the log."""
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
        """Losses and gradients for one batch of raw pairs; includes augmentation.

        `frozen` holds the weights of VGG-19.
        """
        ...

    def reconstruct(self, variables: Variables, source: jax.Array, driving: jax.Array) -> Outputs:
        """Same-identity reconstruction of `driving` from `source`, pair by pair, as in the paper's
        Table 1.
        """
        ...

    def animation_options(self, given: Mapping[str, str]) -> Any:
        """Parses the user's options (threshold, mask_scale, ablation, motion, ...) into a hashable
        value.

        Raises UserError for unknown options and invalid values.
        """
        ...

    def for_inference(self, variables: Variables) -> Variables:
        """Variables for inference, with batch norms folded into convolutions: same results, fewer
        operations.
        """
        ...

    def encode_source(self, variables: Variables, source: jax.Array, first_driving: jax.Array) -> PyTree:
        """Computes the state that is needed once per video; `source` and `first_driving` are (1, S,
        S, 3).
        """
        ...

    def animate(
        self, variables: Variables, source_state: PyTree, driving: jax.Array, options: Any, pose: PyTree | None = None
    ) -> Outputs:
        """Animates the encoded source with a batch of driving frames; returns every output of
        `output_names`.

        `pose` is the result of `pose` for these frames, smoothed over time; if None, the poses of
        the frames are used. It is always None for a system whose options have no `smooth`.
        """
        ...

    def pose(self, variables: Variables, driving: jax.Array) -> PyTree:
        """The pose of driving frames (masks, keypoints) as a tree of (N, ...); averages of poses
        must be poses.

        Only needed by systems whose options have `smooth`.
        """
        ...

    def warnings(self, source_state: PyTree, options: Any) -> list[str]:
        """Warnings about this source and first driving frame, one
        sentence each; runs on the host.
        """
        ...

    def pose_distance(self, variables: Variables, source: jax.Array, driving: jax.Array) -> jax.Array:
        """Distance of each driving frame's pose from the source's: (1, S, S, 3), (N, S, S, 3) to
        (N,) float32.

        Position and size are ignored where the system can separate them from the pose. Only the
        order of the values is meaningful.
        """
        ...

    def outputs(self, variables: Variables, source: jax.Array, driving: jax.Array, key: jax.Array) -> Outputs:
        """Every output of `output_names` for a batch of training pairs, in evaluation mode, for
        image grids.
        """
        ...

    def collapse_warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """Warnings about mask or keypoint collapse from a step's metrics;
        empty when there is none.
        """
        ...

    def shape_settings(self) -> dict[str, Any]:
        """Settings that determine the tensors and their shapes; named when another run's networks
        do not fit.
        """
        ...

    def paper_deviations(self) -> list[str]:
        """Deviations of the config from the paper, one sentence each,
        for the log and the report.
        """
        ...
