"""Is maskanim_jax faster than PyTorch, OpenVINO and ONNX Runtime on this CPU, and with less memory?

See `python -m benchmarks.against_pytorch --help`. All sides get the same frames and weights: a file
in the released format, and this project's ONNX export. First losses, gradient norms and animated
frames are compared; nothing is timed if they differ. Then each side runs in its own process, and
the sides take turns. Measured for both systems:

- step: JAX runs the step of `--mode=train` from uint8 frames on the host, with colour jitter and
  P_train. PyTorch has no jitter, and a plain tensor operation replaces P_train. It is measured
  eagerly and with `torch.compile`.
- animation: JAX runs as in `python -m maskanim_jax.animate`, without files, against PyTorch,
  OpenVINO and ONNX Runtime: one frame at a time (PyTorch as in the released code), and each in its
  fastest batch size of 1, 4 and (at 64 x 64) 8.
- memory: the peak resident set of a process that does only one of these, with a
  warm JAX compilation cache.

Everything is float32 and uses all cores that the process may use (`taskset` restricts them).
PyTorch uses the memory layout (channels last or not) that is faster here.
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
    """The given names in the order of `known`; raises UserError for an unknown one."""
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
        "--others",
        default=",".join(others),
        help=f"besides PyTorch, some of '{','.join(others)}'; default all, '' for none",
    )
    add("--rounds", type=int, help=f"turns of each side; default {ROUNDS}")
    add(
        "--huge_pages",
        choices=HUGE,
        default="both",
        help="which sides use huge pages, as this project's commands do; default both",
    )
    add("--json", type=Path, metavar="FILE", help="new file for all results; written after each task")
    add(
        "--vgg",
        choices=("imagenet", "untrained"),
        default="imagenet",
        help="untrained needs no download and takes the same time",
    )
    args = flags.parse_args(argv)
    only, systems = _some(args.only, TASKS, "only"), _some(args.systems, SYSTEMS, "systems")
    sides = [OURS, PYTORCH, *(_some(args.others, others, "others") if args.others else ())]
    rounds = ROUNDS[args.size] if args.rounds is None else args.rounds
    if rounds < 1:
        raise UserError(f"--rounds={rounds} must be at least 1")
    if args.json and args.json.exists():
        raise UserError(f"{args.json} already exists: give a new file as --json, or move it away")
    if importlib.util.find_spec("torch") is None:
        raise UserError("PyTorch is not installed: run `pip install -e '.[benchmarks]'`")
    if lacking := [side for side in sides if side in ENGINES and not installed(side)]:
        print(f"not installed, so not measured: {', '.join(lacking)}")
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
            onnx = BATCHES[args.size] if engines and any(side in ENGINES for side in sides) else ()
            export(Path(folder), system, args.size, args.vgg == "untrained", onnx)
            for task in only:
                getattr(comparison, task)()
                _write(args.json, about, done)
    print("\n" + ", ".join(f"{name} {value}" for name, value in about.items()))
    print("Medians, with the range of the rounds in brackets. Load on the machine disturbs times more than ratios.\n")
    print(table([row for comparison in done for row in comparison.rows]))
    return 0


def _version(package: str) -> str | None:
    return importlib.metadata.version(package) if importlib.util.find_spec(package) else None


def _write(path: Path | None, about: dict, done: Sequence[Comparison]) -> None:
    """Writes all results so far, atomically."""
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
