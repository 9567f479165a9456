"""How are a system's functions jitted and fed? Once per system, with square float32 frames."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from maskanim_jax.animation.smoothing import smooth
from maskanim_jax.video.images import Fit, square

if TYPE_CHECKING:
    from maskanim_jax.systems.interface import System, Variables


def to_float_square(frame: np.ndarray, size: int, fit: Fit) -> np.ndarray:
    """(H, W, 3) uint8 to (size, size, 3) float32 in [0, 1]."""
    return square(frame, size, fit).astype(np.float32) / 255


class IdentityKey:
    """Wraps a system for use as a cache key: equality and hash by identity."""

    def __init__(self, system: System) -> None:
        self.system = system

    def __hash__(self) -> int:
        return id(self.system)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdentityKey) and self.system is other.system


class Functions(NamedTuple):
    """A system's functions, jitted."""

    fold: Callable[..., Any]
    begin: Callable[..., Any]
    step: Callable[..., Any]
    smoothed_step: Callable[..., Any]
    distance: Callable[..., Any]


@lru_cache(maxsize=4)
def _functions(same: IdentityKey, mesh: Any) -> Functions:
    """Jits once per system, so that the second video of a list does not compile again."""
    import jax

    system, on_mesh = same.system, partial(jax.sharding.use_abstract_mesh, mesh.abstract_mesh)

    def step(variables: Any, source_state: Any, driving: Any, options: Any, names: tuple[str, ...]) -> Any:
        with on_mesh():
            outputs = system.animate(variables, source_state, driving, options)
        # Other outputs are neither computed nor copied to the host.
        return {name: outputs[name] for name in names or outputs}

    def smoothed_step(
        variables: Any, source_state: Any, before: Any, first: Any, driving: Any, options: Any, names: tuple[str, ...]
    ) -> Any:
        with on_mesh():
            pose, last = smooth(system.pose(variables, driving), before, first, options.smooth)
            outputs = system.animate(variables, source_state, driving, options, pose)
        return {name: outputs[name] for name in names or outputs}, last

    return Functions(
        jax.jit(system.for_inference),
        jax.jit(system.encode_source),
        jax.jit(step, static_argnums=(3, 4)),
        jax.jit(smoothed_step, static_argnums=(5, 6)),
        jax.jit(system.pose_distance),
    )


def compiled(system: System, variables: Variables, batch: int) -> JittedModel:
    """The `JittedModel` of these arguments; the last one is cached.

    So batch norms are folded and variables are placed on devices once, not for every video.
    """
    global _last
    if _last is None or _last[0] is not system or _last[1] is not variables or _last[2] != batch:
        _last = (system, variables, batch, JittedModel(system, variables, batch))
    return _last[3]


_last: tuple[System, Variables, int, JittedModel] | None = None


class JittedModel:
    """A system with its variables on the local devices.

    Batches of `batch` frames are sharded over the largest number of devices that divides `batch`.
    """

    def __init__(self, system: System, variables: Variables, batch: int) -> None:
        import jax
        from jax.sharding import NamedSharding, PartitionSpec

        devices = jax.local_devices()
        count = next(count for count in range(min(batch, len(devices)), 0, -1) if batch % count == 0)
        mesh = jax.make_mesh((count,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices[:count])
        self._whole, self._split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
        self._functions = _functions(IdentityKey(system), mesh)
        self._put, self._system = jax.device_put, system
        self._variables = self._functions.fold(self._put(variables, self._whole))

    def begin(self, source: np.ndarray, first: np.ndarray) -> Any:
        """The result of `system.encode_source` for (1, S, S, 3) float32 frames."""
        return self._functions.begin(self._variables, *self._put((source, first), self._whole))

    def step(self, source_state: Any, driving: np.ndarray, options: Any, names: tuple[str, ...] = ()) -> dict[str, Any]:
        """Outputs of a batch (N, S, S, 3), all or the named ones; dispatched asynchronously."""
        return self._functions.step(self._variables, source_state, self._put(driving, self._split), options, names)

    def smoothed_step(
        self, source_state: Any, before: Any, driving: np.ndarray, options: Any, names: tuple[str, ...] = ()
    ) -> tuple[dict[str, Any], Any]:
        """`step` with poses smoothed by `options.smooth`; also returns `before` for the next call.

        `before` None means that these are the first frames.
        """
        import jax

        first = before is None
        if first:
            shapes = jax.eval_shape(self._system.pose, self._variables, driving[:1])
            before = jax.tree.map(lambda shape: np.zeros(shape.shape, shape.dtype), shapes)
        before, flag = self._put((before, np.asarray(first)), self._whole)
        placed = self._put(driving, self._split)
        return self._functions.smoothed_step(self._variables, source_state, before, flag, placed, options, names)

    def distance(self, source: np.ndarray, driving: np.ndarray) -> Any:
        """`system.pose_distance` of (1, S, S, 3) and (N, S, S, 3): (N,)."""
        placed = self._put(source, self._whole), self._put(driving, self._split)
        return self._functions.distance(self._variables, *placed)


def make_video_step(ready: JittedModel, options: Any) -> Callable[..., dict[str, Any]]:
    """The step function for one video, to be called with its batches in order; smoothed if the
    options say so.
    """
    if not getattr(options, "smooth", 0):
        return ready.step
    before: Any = None

    def step(source_state: Any, driving: Any, options: Any, names: tuple[str, ...] = ()) -> dict[str, Any]:
        nonlocal before
        outputs, before = ready.smoothed_step(source_state, before, driving, options, names)
        return outputs

    return step
