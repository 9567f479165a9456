"""How does a system animate one image with many driving frames? Batch by batch, as a generator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from maskanim_jax.animation.compiled import compiled, make_video_step, to_float_square
from maskanim_jax.errors import UserError
from maskanim_jax.utils.batches import padded_batches
from maskanim_jax.video.images import Fit

if TYPE_CHECKING:
    from maskanim_jax.systems.interface import System, Variables


def animate(
    system: System,
    variables: Variables,
    source: np.ndarray,
    driving: Iterable[np.ndarray],
    options: Any,
    *,
    batch: int = 8,
    fit: Fit = "crop",
    first: np.ndarray | None = None,
    warn: Callable[[str], None] | None = None,
    names: Sequence[str] = (),
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the system's outputs for every driving frame: all of them, or those in `names`.

    Each output is (H, W, 1 or 3) float32 in [0, 1]. `source` and each driving frame are (H, W, 3)
    uint8 of any size; `fit` makes them square. `options` is the result of
    `system.animation_options`. `first` replaces the first driving frame as the reference of
    relative motion. `warn` is called with the system's warnings. At most `batch` frames are read
    ahead; the last batch is padded, so that one compilation serves every length.
    """
    if batch < 1:
        raise ValueError("batch must be at least 1")
    ready = compiled(system, variables, batch)
    frames = (to_float_square(frame, system.frame_size, fit) for frame in driving)
    step = make_video_step(ready, options)
    source_state = None
    for padded, count in padded_batches(frames, batch):
        if source_state is None:
            start = padded[0] if first is None else to_float_square(first, system.frame_size, fit)
            source_state = ready.begin(to_float_square(source, system.frame_size, fit)[None], start[None])
            if warn is not None and (messages := system.warnings(source_state, options)):
                warn("; ".join(messages))
        outputs = {
            name: np.asarray(values, np.float32)
            for name, values in step(source_state, padded, options, tuple(names)).items()
        }
        for index in range(count):
            yield {name: values[index] for name, values in outputs.items()}


def nearest_frame(
    system: System,
    variables: Variables,
    source: np.ndarray,
    driving: Iterable[np.ndarray],
    *,
    batch: int = 8,
    fit: Fit = "crop",
) -> tuple[int, np.ndarray]:
    """(index, frame) of the driving frame whose pose is nearest to the
    source's; the first one if tied.

    The distance is `System.pose_distance`. Frames are (H, W, 3) uint8 of any size; only one batch
    and the best frame are in memory. Raises UserError when no distance is finite.
    """
    measure = compiled(system, variables, batch).distance
    wanted = to_float_square(source, system.frame_size, fit)[None]
    best, found, number = np.inf, None, 0
    read: list[np.ndarray] = []

    def units() -> Iterator[np.ndarray]:
        for frame in driving:
            read.append(frame)
            yield to_float_square(frame, system.frame_size, fit)

    for padded, count in padded_batches(units(), batch):
        distances = np.asarray(measure(wanted, padded), np.float32)[:count]
        for frame, distance in zip(read, distances, strict=True):
            if distance < best:
                best, found = float(distance), (number, frame)
            number += 1
        read.clear()
    if found is None:
        raise UserError("no driving frame has a pose that can be compared with the source's: omit --find_best_frame")
    return found
