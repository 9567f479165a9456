"""How is animation exported? `python -m maskanim_jax.export` writes functions that run without this
project.

`--format=jax`: `jax.export` artefacts for several platforms in one file, run by JAX alone;
`--format=onnx`: ONNX models. See docs/export.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from maskanim_jax.errors import UserError, run_main
from maskanim_jax.exporting.export import FORMATS, PLATFORMS, check_export, export
from maskanim_jax.systems.options import system_flags
from maskanim_jax.utils.paths import path_or_bucket, user_path

if TYPE_CHECKING:
    pass


def parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    flags = argparse.ArgumentParser(
        prog="python -m maskanim_jax.export",
        description="Writes a checkpoint's animation as functions that run without this project.",
        allow_abbrev=False,
    )
    add = flags.add_argument
    add(
        "--checkpoint",
        required=True,
        type=path_or_bucket,
        metavar="DIR",
        help="workdir of a run, or a checkpoint in it",
    )
    add("--output", required=True, type=user_path, metavar="FOLDER", help="a new folder")
    add("--format", choices=FORMATS, default="jax", help="what runs it: JAX (default) or an ONNX runtime")
    add("--platforms", metavar="LIST", help=f"with --format=jax: target platforms (default {PLATFORMS})")
    add("--batch", type=int, metavar="N", help="frames per call; default: any number (jax), 1 (onnx)")
    add("--pictures", action="store_true", help="export all intermediate outputs, not only the result")
    for name, message in system_flags().items():
        add(f"--{name}", nargs="?", const="true", metavar="VALUE", help=message.replace("%", "%%"))
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """The command; raises UserError."""
    args = parser().parse_args(argv)
    if args.format == "onnx" and args.platforms is not None:
        raise UserError("--platforms applies only to --format=jax, since ONNX models run on any ONNX runtime; omit it")
    platforms = tuple(name.strip() for name in (args.platforms or PLATFORMS).split(","))
    check_export(args.output, args.format, platforms, args.batch)
    from maskanim_jax.checkpoints.loading import load_run, saved_config
    from maskanim_jax.conversion.cached import run_of
    from maskanim_jax.distributed import setup

    checkpoint = run_of(args.checkpoint)
    setup.configure_jax(saved_config(checkpoint))
    run = load_run(checkpoint)
    options = run.system.animation_options(
        {name: value for name in system_flags() if (value := getattr(args, name)) is not None}
    )
    info = export(
        run, args.output, options, format=args.format, platforms=platforms, batch=args.batch, pictures=args.pictures
    )
    frames = "any number of frames" if info["batch"] is None else f"{info['batch']} frame{'s' * (info['batch'] > 1)}"
    where = f" for {', '.join(info['platforms'])}" if args.format == "jax" else ""
    print(
        f"{args.output}: {info['system']} of step {info['step']}{where}, {frames} per call; see {args.output}/README.md"
    )
    if compared := info["compared"]:
        print(
            f"its files were run: {compared['frames']} frames differ from this project's by {255 * compared['mean_difference']:.2g} of 255 "
            f"grey levels on average, {255 * compared['largest_difference']:.2g} at most"
        )
    else:
        print(f"its files were not run: they are for {', '.join(info['platforms'])}, which this machine does not have")
    return 0


if __name__ == "__main__":
    run_main(main)
