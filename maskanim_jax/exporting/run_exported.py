"""How is an exported animation run? With this file, NumPy, and JAX (for an ONNX
export onnxruntime instead).

python run_exported.py SOURCE DRIVING OUTPUT animates a picture with driving frames: .npy arrays of
uint8, or, with Pillow, a picture file and folders of pictures. From Python: `animation =
load(folder)`, then `for frame in animation(source, frames): ...`.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ANY = 8
"""Frames per call, if the export allows any number."""
Step = Callable[..., Any]


class Animation:
    """An exported animation; `info` is the content of export.json."""

    def __init__(self, folder: Path, info: dict[str, Any]) -> None:
        self.info, self.size = info, int(info["frame_size"])
        self._begin, self._animate = (_onnx if info["format"] == "onnx" else _jax)(folder)

    def __call__(self, source: np.ndarray, driving: Iterable[np.ndarray], batch: int = ANY) -> Iterator[np.ndarray]:
        """Yields an (S, S, 3) uint8 frame for each frame of `driving`; these and
        `source` are (S, S, 3) uint8.
        """
        for outputs in self.outputs(source, driving, batch):
            yield np.clip(np.rint(outputs[self.info["result"]] * 255), 0, 255).astype(np.uint8)

    def outputs(
        self, source: np.ndarray, driving: Iterable[np.ndarray], batch: int = ANY
    ) -> Iterator[dict[str, np.ndarray]]:
        """Like `__call__`, but yields every exported output by name,
        (H, W, 1 or 3) float32 in [0, 1].
        """
        batch = self.info["batch"] or batch
        frames, source_state = (self._to_float_square(frame) for frame in driving), None
        while chunk := list(itertools.islice(frames, batch)):
            if source_state is None:
                source_state = self._begin(self._to_float_square(source)[None], chunk[0][None])
            outputs = self._animate(source_state, np.stack(chunk + [chunk[-1]] * (batch - len(chunk))))
            for index in range(len(chunk)):
                yield {name: values[index] for name, values in outputs.items()}

    def _to_float_square(self, frame: np.ndarray) -> np.ndarray:
        if frame.shape != (self.size, self.size, 3) or frame.dtype != np.uint8:
            raise ValueError(f"frames are ({self.size}, {self.size}, 3) uint8, not {frame.shape} {frame.dtype}")
        return frame.astype(np.float32) / 255


def load(folder: str | Path) -> Animation:
    """The animation in `folder`; raises ValueError if one of its files is damaged."""
    folder = Path(folder)
    info = json.loads((folder / "export.json").read_text())
    for name, expected in info["files"].items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
            raise ValueError(f"{folder / name} is damaged: copy it again or export again")
    return Animation(folder, info)


def _jax(folder: Path) -> tuple[Step, Step]:
    import jax
    from jax import export

    with np.load(folder / "weights.npz") as stored:
        weights = jax.device_put({name: stored[name] for name in stored.files})
    begin, animate = (
        jax.jit(export.deserialize(bytearray((folder / f"{name}.jax_export").read_bytes())).call)
        for name in ("begin", "animate")
    )

    def step(source_state: Any, driving: np.ndarray) -> dict[str, np.ndarray]:
        return {
            name: np.asarray(values, np.float32) for name, values in animate(weights, source_state, driving).items()
        }

    return lambda source, first: begin(weights, source, first), step


def _onnx(folder: Path) -> tuple[Step, Step]:
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    begin, animate = (
        onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=providers) for name in ("begin", "animate")
    )

    def run(session: Any, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        # Arrays that are not needed are not inputs.
        taken = {each.name: inputs[each.name] for each in session.get_inputs()}
        found = zip(session.get_outputs(), session.run(None, taken), strict=True)
        return {each.name.removesuffix("_out"): values for each, values in found}

    return lambda source, first: run(begin, source=source, first=first), lambda source_state, driving: run(
        animate, driving=driving, **source_state
    )


def _read(path: Path, size: int) -> np.ndarray:
    """Reads a .npy array unchanged, a picture cropped square and scaled, or a folder of
    pictures as (N, size, size, 3).
    """
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if path.is_dir():
        return np.stack([_read(each, size) for each in sorted(path.iterdir())])
    from PIL import Image, ImageOps

    with Image.open(path) as picture:
        return np.asarray(ImageOps.fit(picture.convert("RGB"), (size, size)))


def _write(path: Path, frames: Iterator[np.ndarray]) -> int:
    """Writes a .npy of all frames, or a folder of PNGs one by one; returns the number of frames."""
    if path.suffix == ".npy":
        every = np.stack(list(frames))
        np.save(path, every)
        return len(every)
    from PIL import Image

    path.mkdir(parents=True)
    number = -1
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f"{number:06d}.png")
    return number + 1


def main() -> int:
    """The command."""
    flags = argparse.ArgumentParser(description="Runs an exported animation: SOURCE DRIVING OUTPUT.")
    flags.add_argument("source", type=Path, help=".npy (S, S, 3) uint8, or a picture")
    flags.add_argument("driving", type=Path, help=".npy (N, S, S, 3) uint8, or a folder of pictures")
    flags.add_argument("output", type=Path, help=".npy, or a new folder of pictures")
    flags.add_argument(
        "--folder", type=Path, default=Path(__file__).parent, help="folder of the export (default: this file's folder)"
    )
    flags.add_argument("--batch", type=int, default=ANY, help="frames per call, if the export allows any number")
    args = flags.parse_args()
    try:
        animation = load(args.folder)
        source, driving = _read(args.source, animation.size), _read(args.driving, animation.size)
        if args.output.exists():
            raise ValueError(f"{args.output} already exists: give another path")
        count = _write(args.output, animation(source, driving, args.batch))
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.output}: {count} frames, from the checkpoint of step {animation.info['step']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
