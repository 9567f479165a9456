"""How is a trained system used from Python? `load` it, then `animate` or `stream`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from maskanim_jax.animation.compiled import compiled, make_video_step, to_float_square
from maskanim_jax.animation.generate import animate, nearest_frame
from maskanim_jax.animation.inputs import (
    Driving,
    Option,
    Picture,
    clip_facts,
    exact_rate,
    read_frames,
    read_once,
    read_picture,
    refuse_inputs,
)
from maskanim_jax.animation.jobs import write_animation
from maskanim_jax.errors import UserError, check_at_least
from maskanim_jax.utils.paths import path_or_bucket, user_path, user_text
from maskanim_jax.utils.progress import ProgressBar
from maskanim_jax.video.images import Fit
from maskanim_jax.video.reader import open_frames
from maskanim_jax.video.strips import strip, to_uint8
from maskanim_jax.video.timing import Timing
from maskanim_jax.video.writer import check_writable

if TYPE_CHECKING:
    from maskanim_jax.checkpoints.run import LoadedRun


def load(checkpoint: str | os.PathLike[str], which: str = "best") -> Animator:
    """Loads a trained system for animation.

    `checkpoint` is a workdir (`which` selects its "best" or "last" checkpoint), a folder
    WORKDIR/checkpoints/STEP, or a checkpoint file of the released code. Raises UserError when it is
    missing or unreadable.
    """
    if which not in ("best", "last"):
        raise UserError(f"which={which!r} must be 'best' or 'last'")
    from maskanim_jax.checkpoints.loading import load_run, saved_config
    from maskanim_jax.conversion.cached import run_of
    from maskanim_jax.distributed import setup

    path = run_of(path_or_bucket(checkpoint))
    setup.configure_jax(saved_config(path))
    return Animator(load_run(path, which))


@dataclass(frozen=True)
class Animator:
    """A trained system that animates images; created by `load`."""

    run: LoadedRun

    @property
    def frame_size(self) -> int:
        """Side S of the square output frames, in pixels."""
        return self.run.system.frame_size

    @property
    def step(self) -> int:
        """The training step of the checkpoint."""
        return self.run.step

    def __repr__(self) -> str:
        return f"<{self.run.system.name} of step {self.step}, {self.frame_size} x {self.frame_size}>"

    @overload
    def animate(
        self,
        source: Picture,
        driving: Driving,
        *,
        output: None = None,
        fps: None = None,
        batch: int = 8,
        fit: Fit = "crop",
        find_best_frame: bool = False,
        progress: bool = True,
        **options: Option,
    ) -> Iterator[np.ndarray]: ...

    @overload
    def animate(
        self,
        source: Picture,
        driving: Driving,
        *,
        output: str | os.PathLike[str],
        fps: float | Fraction | None = None,
        batch: int = 8,
        fit: Fit = "crop",
        find_best_frame: bool = False,
        progress: bool = True,
        **options: Option,
    ) -> Path: ...

    def animate(
        self,
        source: Picture,
        driving: Driving,
        *,
        output: str | os.PathLike[str] | None = None,
        fps: float | Fraction | None = None,
        batch: int = 8,
        fit: Fit = "crop",
        find_best_frame: bool = False,
        progress: bool = True,
        **options: Option,
    ) -> Iterator[np.ndarray] | Path:
        """Animates `source` with the motion of `driving`, `batch` frames at a time.

        Without `output`, returns an iterator over (S, S, 3) uint8 frames. They are computed on
        demand, so the driving video may have any length. With `output`, writes a file and
        returns its path: *.mp4, *.mov, *.gif, or FOLDER/ for numbered PNGs. The file keeps the
        driving video's timestamps and sound; arrays have 25 frames per second. `fps` sets a
        constant frame rate instead.

        `fit` makes frames of any size square. `find_best_frame` measures relative motion from the
        driving frame whose pose is nearest to the source's. `options` are the system's options:
        threshold="median", mask_scale=0.75, motion="absolute", ...

        Raises UserError for invalid input, output or options. Warnings of the system about the
        source and the driving are issued as Python warnings with the first frame.
        """
        result = self.run.system.result
        if output is None and fps is not None:
            raise UserError("fps applies only to a file: give output=, or omit fps")
        if output is not None:
            output = user_text(output)
            refuse_inputs(output, source, driving)
            check_writable(os.fspath(output))
            if isinstance(driving, str | os.PathLike):
                driving = open_frames(user_path(driving))  # with the timestamps of its frames
        rendered = self.outputs(
            source, driving, names=(result,), batch=batch, fit=fit, find_best_frame=find_best_frame, **options
        )
        if output is None:
            return (frame[result] for frame in rendered)
        total, timing, sound = clip_facts(driving)
        if fps is not None:
            timing = Timing.at_rate(exact_rate(fps))
        counted = ProgressBar(rendered, desc="animate", total=total, unit="frame", disable=not progress)
        write_animation(self.run.system, counted, [os.fspath(output)], fps=timing, sound=sound)
        return Path(output)

    def outputs(
        self,
        source: Picture,
        driving: Driving,
        *,
        names: Sequence[str] = (),
        batch: int = 8,
        fit: Fit = "crop",
        find_best_frame: bool = False,
        **options: Option,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Like `animate`, but yields all intermediate outputs of each frame by name, or those in
        `names`.

        Each is (H, W, 3) uint8; masks are grey.
        """
        check_at_least("batch", batch)
        wanted = self._names(names)
        chosen = self._options(options)
        still = read_picture(source)
        if isinstance(driving, np.ndarray) and driving.ndim != 4:
            raise UserError(f"a driving array is (N, H, W, 3), not {driving.shape}: give [frame] for a single frame")
        if find_best_frame and read_once(driving):
            raise UserError(
                "find_best_frame reads the driving frames twice: give a path, a list or an array instead of a generator"
            )
        if isinstance(driving, str | os.PathLike):
            open_frames(user_path(driving)).close()  # reports a bad file now rather than with the first frame
        return self._outputs(still, driving, chosen, wanted, batch, fit, find_best_frame)

    def _outputs(
        self,
        source: np.ndarray,
        driving: Driving,
        options: Any,
        names: tuple[str, ...],
        batch: int,
        fit: Fit,
        find_best_frame: bool,
    ) -> Iterator[dict[str, np.ndarray]]:
        system, variables, first = self.run.system, self.run.variables, None
        if find_best_frame:
            with ExitStack() as stack:
                frames = read_frames(driving, stack)
                first = nearest_frame(system, variables, source, frames, batch=batch, fit=fit)[1]
        with ExitStack() as stack:
            frames = read_frames(driving, stack)
            for outputs in animate(
                system,
                variables,
                source,
                frames,
                options,
                batch=batch,
                fit=fit,
                first=first,
                warn=_warn,
                names=names,
            ):
                yield {name: to_uint8(values) for name, values in outputs.items()}

    def strip(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The outputs of one frame (from `outputs`) side by side with captions: one (H, W, 3) uint8
        image.
        """
        return strip(outputs, self.run.system.output_names, self.frame_size, captions=True)

    def stream(self, source: Picture, *, fit: Fit = "crop", **options: Option) -> AnimationStream:
        """A stream that takes one driving frame at a time, as from a camera. Raises UserError like
        `animate`.
        """
        return AnimationStream(self, read_picture(source), fit, self._options(options))

    def _names(self, names: Sequence[str]) -> tuple[str, ...]:
        known = self.run.system.output_names
        for name in names:
            if name not in known:
                raise UserError(f"there is no output {name!r}: this system has {', '.join(known)}")
        return tuple(names)

    def _options(self, given: Mapping[str, Option]) -> Any:
        texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()}
        return self.run.system.animation_options(texts)


class AnimationStream:
    """Animates a source frame by frame: `frame = stream(driving_frame)`.

    Relative motion is measured from the first driving frame.
    """

    def __init__(self, animator: Animator, source: np.ndarray, fit: Fit, options: Any) -> None:
        self._animator, self._system, self._fit, self._options = animator, animator.run.system, fit, options
        self._compiled = compiled(self._system, animator.run.variables, 1)
        self._step = make_video_step(self._compiled, options)
        self._source = to_float_square(source, self._system.frame_size, fit)[None]
        self._source_state: Any = None

    def __call__(self, driving: Picture) -> np.ndarray:
        """Animates the source with one driving frame, (H, W, 3) uint8 of any size; returns (S, S,
        3) uint8.
        """
        return self.outputs(driving, (self._system.result,))[self._system.result]

    def outputs(self, driving: Picture, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """All intermediate outputs for one driving frame by name, or those in `names`: (H, W, 3)
        uint8.
        """
        frame = to_float_square(read_picture(driving), self._system.frame_size, self._fit)[None]
        if self._source_state is None:
            self._source_state = self._compiled.begin(self._source, frame)
            if messages := self._system.warnings(self._source_state, self._options):
                _warn("; ".join(messages))
        rendered = self._step(self._source_state, frame, self._options, self._animator._names(names))
        return {name: to_uint8(np.asarray(values, np.float32)[0]) for name, values in rendered.items()}


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=2)
