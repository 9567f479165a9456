"""`python -m maskanim_jax.main --config=configs/taichi.py --workdir=DIR [--mode=train|reconstruct|animate|all] [--config.a.b=c]`.

Only parses and calls; `train.py`, `evaluate.py` and `report.py` do the work.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from maskanim_jax.errors import UserError, exit_with_sentence

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "a file of configs/, with an argument behind a colon if it has one", lock_config=True
)
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run: checkpoints, log, results, report")
MODE = flags.DEFINE_enum("mode", "train", ["train", "reconstruct", "animate", "all"], "what to do; all: one after the other")


def main(_: list[str]) -> None:
    """Called by absl with what is left of the command line."""
    exit_with_sentence(run)


def run() -> None:
    """Does what the flags say; raises UserError when they cannot be."""
    if CONFIG.value is None:
        raise UserError("--config is missing: give a file such as configs/demo.py")
    if not WORKDIR.value:
        raise UserError("--workdir is missing: give a folder for the run")
    logging.set_verbosity(logging.WARNING)
    from maskanim_jax import evaluate, platform, report, train

    platform.prepare()
    workdir = Path(WORKDIR.value)
    steps = {"train": train.train, "reconstruct": evaluate.reconstruct_test, "animate": evaluate.animate_test}
    for name, step in steps.items():
        if MODE.value in (name, "all"):
            step(CONFIG.value, workdir)
    page = report.write_report(workdir)
    print(f"\n{report.summary(workdir)}\nLook at {page}; videos are in {workdir}/reconstruction and {workdir}/animation.")


def cli() -> None:
    """Entry point. absl ends --help with 1 and a wrong flag with a traceback of its own, so both are handled here."""
    if any(argument in ("--help", "-h", "-help", "--helpfull") for argument in sys.argv[1:]):
        print(__doc__.strip())
        print(f"\nFlags:\n{flags.FLAGS.module_help(sys.modules['__main__'])}" if __name__ == "__main__" else "")
        sys.exit(0)
    app.run(main)


if __name__ == "__main__":
    cli()
