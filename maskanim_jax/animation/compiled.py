"""How does a frame get to a system's functions? Made square and float, and jitted once for each system."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from maskanim_jax.images import Fit, square

if TYPE_CHECKING:
    from maskanim_jax.systems.interface import System


def unit(frame: np.ndarray, size: int, fit: Fit) -> np.ndarray:
    """(H, W, 3) uint8 to (size, size, 3) float32 in [0, 1]."""
    return square(frame, size, fit).astype(np.float32) / 255


class Compiled(NamedTuple):
    """A system's `begin_animation`, `animate` and `pose_distance`."""

    begin: Callable[..., Any]
    step: Callable[..., Any]
    distance: Callable[..., Any]


class _Same:
    """Compares systems by identity, whatever they say of equality and hashing."""

    def __init__(self, system: System) -> None:
        self.system = system

    def __hash__(self) -> int:
        return id(self.system)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.system is other.system


@lru_cache(maxsize=4)
def _compiled(same: _Same) -> Compiled:
    import jax

    system = same.system
    return Compiled(
        jax.jit(system.begin_animation), jax.jit(system.animate, static_argnums=3), jax.jit(system.pose_distance)
    )


def compiled(system: System) -> Compiled:
    """Jitted once for each system, so that the second video of a list does not compile again."""
    return _compiled(_Same(system))
