"""Are we faster than others on this CPU, and with less memory? `python -m benchmarks.against_pytorch --help` tells how to ask.

All sides get the same weights (ours: a file of the released format, and our own ONNX export) and the same frames. First losses, gradient
norms and animated frames are compared, and nothing is timed when they differ. Then each side works in a process of its own, which stays alive,
and they are told in turns to go on. What is measured, for both systems:

- step: ours as `--mode=train` runs it, colour jitter and P_train inside, from uint8 frames on the host. PyTorch gets neither jitter nor P_train:
  in its place stands a plain tensor operation. Beside eager PyTorch its step under `torch.compile`.
- animation: ours as `python -m maskanim_jax.animate` runs it, without the files, against PyTorch, OpenVINO and ONNX Runtime; one frame at a time
  (PyTorch as the released code does it), and each in the batch of 1, 4 or 8 that is fastest for it.
- memory: the largest resident set of a process that does nothing but one of these, with our compilation cache warm.

Everything is float32 and uses all cores that the process may use (`taskset` restricts them).
PyTorch has the memory layout (channels last or not) that is faster for the task here.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.comparison.engines import ENGINES, installed
from benchmarks.comparison.measure import BATCHES, ROUNDS, Comparison
from benchmarks.comparison.start import CONFIGS, STEP_BATCHES, SYSTEMS, threads
from benchmarks.comparison.table import table
from benchmarks.comparison.worker import COMPILED, OURS, PYTORCH, export
from maskanim_jax.errors import UserError, run_main

TASKS = ("step", "animation", "memory")
HUGE = {"ours": ["ours"], "both": ["ours", "others"], "none": []}
PACKAGES = {"jax": "jax", PYTORCH: "torch", "OpenVINO": "openvino", "ONNX Runtime": "onnxruntime"}


def _some(given: str, known: Sequence[str], flag: str) -> list[str]:
    """The named ones in the order of `known`; raises UserError for a name that is none."""
    names = given.split(",")
    if wrong := [name for name in names if name not in known]:
        raise UserError(f"--{flag}={given} has '{wrong[0]}': give some of {','.join(known)}")
    return [name for name in known if name in names]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; raises UserError."""
    flags = argparse.ArgumentParser(
        prog="python -m benchmarks.against_pytorch", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add, sizes = flags.add_argument, sorted(STEP_BATCHES)
    others = [COMPILED, *ENGINES]
    add("--size", type=int, choices=sizes, default=64, help="256: released settings; 64 (default): puppets")
    add("--systems", default=",".join(SYSTEMS), help=f"some of {','.join(SYSTEMS)}; default both")
    add("--only", default=",".join(TASKS), help=f"some of {','.join(TASKS)}")
    add(
        "--others", default=",".join(others), help=f"beside PyTorch some of '{','.join(others)}'; default all, none: ''"
    )
    add("--rounds", type=int, help=f"turns of each side; default {ROUNDS}")
    add("--huge_pages", choices=HUGE, default="both", help="who gets them, as our commands do; default both")
    add("--json", type=Path, metavar="FILE", help="new file for all figures; written after each task")
    add("--vgg", choices=("imagenet", "untrained"), default="imagenet", help="untrained needs no download; as fast")
    args = flags.parse_args(argv)
    only, systems = _some(args.only, TASKS, "only"), _some(args.systems, SYSTEMS, "systems")
    sides = [OURS, PYTORCH, *(_some(args.others, others, "others") if args.others else ())]
    rounds = ROUNDS[args.size] if args.rounds is None else args.rounds
    if rounds < 1:
        raise UserError(f"--rounds={rounds} must be at least 1")
    if args.json and args.json.exists():
        raise UserError(f"{args.json} already exists: give a new file as --json, or move it away")
    if importlib.util.find_spec("torch") is None:
        raise UserError("PyTorch is not installed: `pip install -e '.[benchmarks]'` brings it")
    if lacking := [side for side in sides if side in ENGINES and not installed(side)]:
        print(f"not measured, since not installed: {', '.join(lacking)}")
        sides = [side for side in sides if side not in lacking]
    about = {
        "configs": {system: CONFIGS[system][args.size] for system in systems},
        "threads": threads(),
        "rounds": rounds,
        "huge pages": args.huge_pages,
        **{name: _version(PACKAGES[name]) for name in ("jax", *sides) if name in PACKAGES},
    }
    done: list[Comparison] = []
    for system in systems:
        with tempfile.TemporaryDirectory() as folder:
            comparison = Comparison(system, args.size, rounds, Path(folder), sides, HUGE[args.huge_pages])
            done.append(comparison)
            engines = "animation" in only or "memory" in only
            onnx = BATCHES if engines and any(side in ENGINES for side in sides) else ()
            export(Path(folder), system, args.size, args.vgg == "untrained", onnx)
            for task in only:
                getattr(comparison, task)()
                _write(args.json, about, done)
    print("\n" + ", ".join(f"{name} {value}" for name, value in about.items()))
    print("Medians, smallest to largest of the rounds in brackets; busy machines disturb times more than ratios.\n")
    print(table([row for comparison in done for row in comparison.rows]))
    return 0


def _version(package: str) -> str | None:
    return importlib.metadata.version(package) if importlib.util.find_spec(package) else None


def _write(path: Path | None, about: dict, done: Sequence[Comparison]) -> None:
    """Everything so far, whole or not at all."""
    if path is None:
        return
    layouts = {
        each.system: {task: "channels last" if last else "channels first" for task, last in each.last.items()}
        for each in done
    }
    found = {"layouts": layouts, "rows": [row for each in done for row in each.rows]}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_text(json.dumps(about | found, indent=2) + "\n")
    os.replace(temporary, path)


if __name__ == "__main__":
    run_main(main)
