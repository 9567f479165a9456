"""How is the accelerator benchmark run? Flags, parts, report."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.accelerator import __doc__ as told
from benchmarks.accelerator import parts
from benchmarks.accelerator.report import Report
from benchmarks.accelerator.supervisor import Stopped, Supervisor
from maskanim_jax.errors import UserError, run_main

KINDS = ("device", "parity", "training", "animation", "learning", "pytorch")
STOPPED = 143


def _numbers(text: str) -> list[int]:
    numbers = [int(each) for each in text.split(",")]
    if not numbers or min(numbers) < 1:
        raise ValueError
    return numbers


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator",
        description=told,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = flags.add_argument
    add("--minutes", type=float, default=8.0, help="total time (default 8); finished results are kept")
    add(
        "--output",
        type=Path,
        default=Path("accelerator.json"),
        help="JSON file; the tables are written beside it as .md",
    )
    add("--parity", type=Path, default=parts.parity_folder(), metavar="FOLDER", help="the recorded numbers")
    add("--only", metavar="KINDS", help=f"some of {','.join(KINDS)}")
    add("--frame_size", type=int, default=256, help="256 (default): released networks; 64, 128: reduced ones")
    add("--batches", type=_numbers, default=[4, 16, 64], help="batch sizes of training steps (default 4,16,64)")
    add("--animation_batches", type=_numbers, default=[1, 32], help="batch sizes of animation (default 1,32)")
    add("--precision", default="bfloat16,float32", help="in this order (default bfloat16,float32)")
    add("--steps", type=int, default=300, help="training steps that must lower the loss (default 300)")
    add("--small", action="store_true", help="very narrow networks, to test the command itself")
    add("--part", help=argparse.SUPPRESS)
    return flags


def _checked(args: argparse.Namespace) -> argparse.Namespace:
    """Raises UserError for invalid values."""
    args.precision = args.precision.split(",")
    args.only = None if args.only is None else args.only.split(",")
    if wrong := [each for each in args.precision if each not in ("bfloat16", "float32")]:
        raise UserError(f"--precision has '{wrong[0]}': give bfloat16, float32 or both")
    if wrong := [each for each in args.only or () if each not in KINDS]:
        raise UserError(f"--only has '{wrong[0]}': give some of {','.join(KINDS)}")
    if args.frame_size % 64 or not 64 <= args.frame_size <= 512:
        raise UserError(f"--frame_size={args.frame_size} must be a multiple of 64 up to 512")
    if args.minutes <= 0:
        raise UserError(f"--minutes={args.minutes:g} must be more than 0")
    if args.steps < 2:
        raise UserError(f"--steps={args.steps} must be at least 2")
    if not args.output.parent.is_dir():
        raise UserError(f"{args.output.parent} is not a folder: create it or give another --output")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 when everything that ran passed, 1 when a check failed, 143 after
    SIGTERM; raises UserError.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    began = time.monotonic()
    args = _checked(parser().parse_args(argv))
    if args.part:
        parts.serve(args.part, args)
        return 0
    wanted = parts.names(args)
    report = Report(args.output, {"command": " ".join(argv), "date": time.strftime("%Y-%m-%d", time.gmtime())})
    worker = [sys.executable, "-m", "benchmarks.accelerator", *argv]
    status = 0
    try:
        supervisor = Supervisor(report, worker, began + 60 * args.minutes)
        for part in wanted:
            if reason := parts.skipped(part, args):
                report.ended(part, reason)
                print(f"{part}: {reason}", file=sys.stderr)
        supervisor.run([part for part in wanted if parts.skipped(part, args) is None])
    except Stopped as stopped:
        print(f"{stopped}: finished results are in {args.output}", file=sys.stderr)
        status = STOPPED
    print(report.tables())
    if report.failed:
        print(f"not passed: {', '.join(report.failed)}", file=sys.stderr)
    return status or int(bool(report.failed))


if __name__ == "__main__":
    run_main(main)
