"""Which driving frame is in the source's pose? `--best_frame` takes it for the first one, from which relative motion is measured."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from maskanim_jax.animation.compiled import compiled, unit
from maskanim_jax.errors import UserError
from maskanim_jax.video.images import Fit

if TYPE_CHECKING:
    from maskanim_jax.systems.interface import System, Variables


def nearest_frame(
    system: System,
    variables: Variables,
    source: np.ndarray,
    driving: Iterable[np.ndarray],
    *,
    batch: int = 8,
    fit: Fit = "crop",
) -> tuple[int, np.ndarray]:
    """(number, frame) of the driving frame whose pose is nearest to the source's by the system's measure; the first among equals.

    Frames are (H, W, 3) uint8 of any size; only a batch of them and the best are held. Raises UserError when no distance is finite.
    """
    distance = compiled(system, variables, batch).distance
    wanted = unit(source, system.frame_size, fit)[None]
    best, found, number = np.inf, None, 0
    frames = iter(driving)
    while some := list(itertools.islice(frames, batch)):
        units = [unit(frame, system.frame_size, fit) for frame in some]
        filled = np.stack(units + [units[-1]] * (batch - len(some)))
        for frame, far in zip(some, np.asarray(distance(wanted, filled), np.float32), strict=False):
            if far < best:
                best, found = float(far), (number, frame)
            number += 1
    if found is None:
        raise UserError("no driving frame has a pose that can be compared with the source's: leave --best_frame away")
    return found
