"""How is a checkpoint bundled with the package?

`python -m scripts.pack_checkpoint --workdir=RUN --name=puppets`. A system whose motion is relative
gets `--start=driver`: its example sources are drawn in the driver's first pose.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskanim_jax.checkpoints.bundled import CARD, CONFIG, DRIVING, FOLDER, LARGEST, SOURCE, VARIABLES, VERSION, key
from maskanim_jax.errors import UserError, run_main
from maskanim_jax.evaluation.cross_identity_scenes import STARTS
from maskanim_jax.utils import json_files
from maskanim_jax.utils.atomic_files import atomic_write

EXAMPLES = 4
LARGEST_DIFFERENCE = 1
"""Grey levels by which half precision may change a frame."""

if TYPE_CHECKING:
    from maskanim_jax.checkpoints.run import LoadedRun


def pack(workdir: Path, name: str, output: Path = FOLDER, start: str = "own") -> Path:
    """Writes the folder `output`/NAME and returns it: the best checkpoint without optimiser state,
    its config, hashes and metrics.

    For a run on puppets, examples are added: a held-out puppet and the video of another one each.
    `start` is one of `STARTS`: the source's pose in them.
    Raises UserError if the checkpoint is too large, or if the run was not reconstructed with it.
    """
    from maskanim_jax.checkpoints.loading import load_run

    run = load_run(workdir)
    figures = _figures(workdir, run.step)
    clips = _example_clips(run, start) if run.config.data.puppets.test_identities else []
    variables, stored = _smallest(run, clips)
    content = {VARIABLES: _npz(variables), CONFIG: _json(run.config.to_dict())}
    if len(content[VARIABLES]) > LARGEST:
        raise UserError(
            f"the checkpoint of {workdir} has {len(content[VARIABLES]):,} bytes packed, more than {LARGEST:,}: pack a smaller model"
        )
    card = {
        "version": VERSION,
        "name": name,
        "system": run.system.name,
        "step": run.step,
        "stored": stored,
        "sha256": {file: hashlib.sha256(data).hexdigest() for file, data in content.items()},
        "figures": figures,
        "trained_with": _trained_with(workdir),
    }
    if clips:
        card["examples"] = {"source_pose": start}
    content[CARD] = _json(card)
    folder = output / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in content.items():
        with atomic_write(folder / file) as temporary:
            temporary.write_bytes(data)
    _write_examples(clips, folder)
    return folder


def _json(content: dict[str, Any]) -> bytes:
    """The file's content; of absolute paths, which mean nothing on another machine, only the last
    two parts stay.
    """

    def portable(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: portable(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [portable(each) for each in value]
        if isinstance(value, str) and Path(value).is_absolute():
            return "/".join(Path(value).parts[1:][-2:])
        return value

    return (json.dumps(portable(content), indent=2) + "\n").encode()


Example = tuple[np.ndarray, list[np.ndarray]]
"""A source frame and the frames of a driver, (S, S, 3) uint8."""


def _smallest(run: LoadedRun, clips: Sequence[Example]) -> tuple[Any, dict[str, Any]]:
    """The variables to store, and what the card says about them.

    Parameters are stored in half precision when that changes animated frames by at most one grey
    level. Statistics stay float32: variances may be below the smallest half-precision number.
    """
    import jax

    variables = jax.device_get(run.variables)
    if not clips:
        return variables, {"parameters": "float32"}
    half = variables._replace(params=jax.tree.map(lambda leaf: leaf.astype(np.float16), variables.params))
    read_back = variables._replace(params=jax.tree.map(lambda leaf: leaf.astype(np.float32), half.params))
    largest = int(np.abs(_animated(run, clips, read_back) - _animated(run, clips, variables)).max())
    if largest > LARGEST_DIFFERENCE:
        return variables, {"parameters": "float32", "frame_difference_in_half_precision": largest}
    return half, {"parameters": "float16", "frame_difference": largest}


def _animated(run: LoadedRun, clips: Sequence[Example], variables: Any) -> np.ndarray:
    """Grey levels (N, S, S, 3) int of the example animations with these variables."""
    from maskanim_jax.animation.generate import animate

    options, frames = run.system.animation_options({}), []
    for source, driving in clips:
        outputs = animate(run.system, variables, source, driving, options, names=(run.system.result,))
        frames += [np.rint(output[run.system.result].clip(0, 1) * 255) for output in outputs]
    return np.stack(frames).astype(int)


def _npz(variables: Any) -> bytes:
    """The variables as arrays by path; the same bytes for the same variables."""
    import jax

    leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
    arrays: dict[str, Any] = {key(where): np.asarray(leaf) for where, leaf in leaves}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _figures(workdir: Path, step: int) -> dict[str, Any]:
    """The metrics of reconstruction and, if measured, of the cross-identity
    evaluation, without single clips and without advice for this machine.
    """
    found = {}
    for name in ("reconstruction", "truth"):
        path = workdir / f"{name}.json"
        if not path.exists():
            continue
        content = json_files.read(path)
        if content.get("checkpoint_step") != step:
            raise UserError(
                f"{path} is of step {content.get('checkpoint_step')}, not of the best checkpoint's step {step}: measure again"
            )
        kept = {name: value for name, value in content.items() if name not in ("clips", "definitions", "not_measured")}
        if "rows" in kept:
            kept["rows"] = [{k: v for k, v in row.items() if k != "pairs"} for row in kept["rows"]]
        found[name] = kept
    if "reconstruction" not in found:
        raise UserError(
            f"{workdir} has no reconstruction.json: run `python -m maskanim_jax.main --workdir={workdir} --mode=reconstruct` first"
        )
    return found


def _trained_with(workdir: Path) -> dict[str, Any]:
    """Versions and devices of the run's last start, and the networks that its first
    start took, if recorded.
    """
    try:
        starts = json_files.read(workdir / "run.json")["starts"]
        found = {name: starts[-1][name] for name in ("versions", "devices", "git") if name in starts[-1]}
        if taken := starts[0].get("initial_networks"):
            found["initial_networks"] = {name: taken[name] for name in ("path", "step", "sha256") if name in taken}
        return found
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return {}


def _example_clips(run: LoadedRun, start: str) -> list[Example]:
    """Up to `EXAMPLES` pairs of a held-out puppet in its own or the driver's first pose
    and the frames of another one.
    """
    from input_pipeline.puppets.dataset import clips_of, render_clip, true_animation

    held_out, size = clips_of(run.config.data.puppets, "test"), run.system.frame_size
    found = []
    for number in range(min(EXAMPLES, len(held_out) // 2) or 1):
        source, driving = held_out[number], held_out[-1 - number]
        first = next(iter(true_animation(source, driving, size) if start == "driver" else render_clip(source, size)))
        found.append((first.frame, [drawn.frame for drawn in render_clip(driving, size)]))
    return found


def _write_examples(clips: Sequence[Example], folder: Path) -> None:
    from PIL import Image

    from input_pipeline.puppets.pose import FRAME_RATE
    from maskanim_jax.video.writer import VideoWriter

    for number, (still, frames) in enumerate(clips, 1):
        suffix = f"-{number}" if number > 1 else ""
        source, driving = (folder / name.replace(".", f"{suffix}.") for name in (SOURCE, DRIVING))
        with atomic_write(source) as temporary:
            Image.fromarray(still).save(temporary, format="PNG", optimize=True)
        with VideoWriter(driving, FRAME_RATE) as video:
            for frame in frames:
                video.write(frame)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; raises UserError."""
    flags = argparse.ArgumentParser(
        prog="python -m scripts.pack_checkpoint",
        description="Bundles the best checkpoint of a run with the package, together with its config, hashes and metrics.",
    )
    flags.add_argument("--workdir", type=Path, required=True, help="folder of a reconstructed run")
    flags.add_argument("--name", required=True, help="name of the checkpoint, for --checkpoint=NAME")
    flags.add_argument("--output", type=Path, default=FOLDER, help="folder to write to (default: the package's own)")
    flags.add_argument(
        "--start", choices=STARTS, default="own", help="pose of the examples' sources: their own, or the driver's first"
    )
    args = flags.parse_args(argv)
    if not args.name.replace("-", "_").isidentifier():
        raise UserError(f"--name={args.name} must have letters, digits, - and _ only")
    folder = pack(args.workdir, args.name, args.output, args.start)
    print(f"{folder}: {(folder / VARIABLES).stat().st_size:,} bytes of variables")
    return 0


if __name__ == "__main__":
    run_main(main)
