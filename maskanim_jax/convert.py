"""How are checkpoints of the released code converted to runs and back?

See `python -m maskanim_jax.convert --help`.

Only tensors and plain values are read from the file; nothing in it is ever executed. See
docs/checkpoints.md.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from maskanim_jax.conversion.exporting import export_checkpoint
from maskanim_jax.conversion.importing import import_checkpoint
from maskanim_jax.errors import UserError, check_at_least, run_main
from maskanim_jax.utils.paths import path_or_bucket, user_path
from maskanim_jax.workdir.config_files import load_config


def parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    flags = argparse.ArgumentParser(
        prog="python -m maskanim_jax.convert",
        description="Makes a run from a checkpoint of the released code, or with --to=torch such a checkpoint from a run.",
        allow_abbrev=False,
    )
    add = flags.add_argument
    add(
        "--input",
        required=True,
        type=path_or_bucket,
        metavar="IN",
        help="a FILE.pth.tar; with --to=torch a workdir or WORKDIR/checkpoints/STEP",
    )
    add(
        "--output",
        required=True,
        type=user_path,
        metavar="OUT",
        help="the new workdir; with --to=torch the new FILE.pth.tar",
    )
    add(
        "--to",
        choices=("run", "torch"),
        default="run",
        help="run (default): a workdir; torch: a file of the released code",
    )
    add(
        "--config",
        metavar="FILE[:ARG]",
        help="the config that the checkpoint was trained with, such as configs/fomm_voxceleb_adv.py or configs/taichi.py:released "
        "(default: determined from the file's tensors)",
    )
    add("--steps_per_epoch", type=int, metavar="N", help="steps per epoch of your data; needed to resume training")
    add("--without_optimizer", action="store_true", help="do not convert the optimiser state")
    add(
        "--as_config",
        action="store_true",
        help="keep every setting of the config; otherwise FOMM gets corner-aligned sampling, as in the training of the published files",
    )
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """The command; raises UserError."""
    args = parser().parse_args(argv)
    logging.getLogger("absl").setLevel(logging.ERROR)  # hides Orbax's progress messages
    if args.to == "torch":
        if args.config or args.steps_per_epoch or args.without_optimizer or args.as_config:
            raise UserError(
                "--to=torch takes everything from the run: omit --config, --steps_per_epoch, --without_optimizer and --as_config"
            )
        said = export_checkpoint(args.input, args.output)
    else:
        check_at_least("--steps_per_epoch", args.steps_per_epoch)
        config = load_config(args.config) if args.config else None
        said = import_checkpoint(
            user_path(args.input),
            args.output,
            config,
            args.steps_per_epoch,
            not args.without_optimizer,
            not args.as_config,
        )
    print("\n".join(said))
    return 0


if __name__ == "__main__":
    run_main(main)
