"""What is measured, in which order?

Each part runs in its own process, which prints its rows to stdout as JSON lines.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.accelerator.workload import SYSTEMS, config_of

Row = dict[str, Any]
SHORT = {"pm": "perturbed_masks", "fomm": "fomm"}
"""The systems' names in the names of parts."""


def names(args: argparse.Namespace) -> list[str]:
    """All parts in order: results that only an accelerator can give come
    first, slow parts come last.
    """
    first, *others = args.precision
    of_systems = [
        *(f"parity-{system}" for system in SHORT),
        *(f"training-{system}-{first}" for system in SHORT),
        *(f"animation-{system}-{first}" for system in SHORT),
        *(f"learning-{system}" for system in SHORT),
        *(f"pytorch-{system}-{first}" for system in SHORT),
    ]
    later = [f"{kind}-{s}-{p}" for p in others for kind in ("training", "animation", "pytorch") for s in SHORT]
    every = ["device", *of_systems, *later]
    return [part for part in every if args.only is None or part.split("-")[0] in args.only]


def skipped(part: str, args: argparse.Namespace) -> str | None:
    """Why a part can't be measured, or None; checked before its process starts."""
    kind = part.split("-")[0]
    if kind == "parity" and not (args.parity / "frames.npz").is_file():
        return f"skipped: {args.parity} lacks the recorded numbers; give their folder as --parity"
    if kind == "pytorch" and importlib.util.find_spec("torch") is None:
        return "skipped: PyTorch is not installed"
    return None


def serve(part: str, args: argparse.Namespace) -> None:
    """Runs a part in this process and prints a JSON line per row; the first
    one describes the device.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries' output must not mix with the rows
    for row in _rows(part, args):
        print(json.dumps(row), file=answers, flush=True)


def _rows(part: str, args: argparse.Namespace) -> Iterator[Row]:
    kind, *more = part.split("-")
    system = SHORT[more[0]] if more else SYSTEMS[0]
    precision = more[1] if len(more) > 1 else args.precision[0]
    configs = partial(config_of, system, args.frame_size, precision, args.small)
    seconds = 0.2 if args.small else 5.0
    if kind == "pytorch":
        from benchmarks.accelerator import pytorch

        device = pytorch.available() or ("cpu" if args.small else None)
        if device is None:
            yield {"note": "skipped: PyTorch does not have this device"}
        else:
            yield from pytorch.pytorch(configs, args.batches, args.animation_batches, device, seconds)
        return

    from maskanim_jax.distributed import setup

    setup.configure_jax(configs())
    import jax

    from benchmarks.accelerator import devices, speed
    from benchmarks.accelerator.parity import parity

    if kind == "device":
        import jax.numpy as jnp

        side = 256 if jax.default_backend() == "cpu" else 8192
        yield devices.about() | {
            "matmul_tflops": {
                str(dtype): devices.matmul_tflops(side, getattr(jnp, dtype)) for dtype in ("bfloat16", "float32")
            }
        }
    elif kind == "parity":
        yield from parity(args.parity, system)
    elif kind == "training":
        yield from speed.training(configs, args.batches, seconds)
    elif kind == "animation":
        yield from speed.animation(configs, args.animation_batches, seconds)
    elif kind == "learning":
        yield from speed.learning(configs(), min(args.batches), args.steps)


def parity_folder() -> Path:
    """The default folder of the recorded numbers."""
    with contextlib.suppress(ImportError):
        from benchmarks.recorded import FOLDER

        return FOLDER
    return Path("parity")
