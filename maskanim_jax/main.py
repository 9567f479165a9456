"""`python -m maskanim_jax.main --config=configs/taichi.py --workdir=DIR [--mode=train|reconstruct|animate|all] [--config.a.b=c]`.

Only parses and calls; `train.py`, `evaluate.py` and `report.py` do the work.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from maskanim_jax.errors import UserError, exit_with_sentence

HELP = ("--help", "-h", "-help", "--helpfull", "--helpshort")
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "a file of configs/, with an argument behind a colon if it has one", lock_config=True
)
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run: checkpoints, log, results, report")
MODE = flags.DEFINE_enum(
    "mode", "train", ["train", "reconstruct", "animate", "all"], "what to do; all: one after the other"
)


def parse(argv: list[str]) -> None:
    """Parses the command line; raises UserError for what cannot be, a config's field with a slip in its name among it."""
    try:
        rest = flags.FLAGS(argv)[1:]
        config = CONFIG.value
        if config is not None:
            config.to_dict()  # only now does a file that could not be loaded say so
    except flags.Error as error:
        raise UserError(f"{str(error).splitlines()[0]}; --help shows the flags") from error
    except (AttributeError, KeyError, TypeError) as error:  # a field that the config lacks, or a value of another type
        sentence = str(error).replace("\\n", " ").replace("\\'", "'").strip("'\" ")
        raise UserError(f"a --config.* flag cannot be: {' '.join(sentence.splitlines())}") from error
    except OSError as error:
        path = next((argument for argument in argv if argument.startswith("--config")), "--config")
        raise UserError(f"{path} is no config file that can be read: give one such as configs/demo.py") from error
    if rest:
        raise UserError(f"'{rest[0]}' is no flag: --help shows the flags")
    if config is None:
        raise UserError("--config is missing: give a file such as configs/demo.py")
    if not WORKDIR.value:
        raise UserError("--workdir is missing: give a folder for the run")


def main() -> None:
    """Does what the command line says."""
    if any(argument in HELP for argument in sys.argv[1:]):
        print(f"{(__doc__ or '').strip()}\n\nFlags:\n{flags.FLAGS.module_help(sys.modules[__name__])}")
        return
    parse(sys.argv)
    logging.set_verbosity(logging.WARNING)
    from maskanim_jax import evaluate, platform, report, train

    platform.prepare(CONFIG.value)
    workdir = Path(str(WORKDIR.value))
    steps = {"train": train.train, "reconstruct": evaluate.reconstruct_test, "animate": evaluate.animate_test}
    for name, step in steps.items():
        if MODE.value in (name, "all"):
            step(CONFIG.value, workdir)
    page = report.write_report(workdir)
    print(
        f"\n{report.summary(workdir)}\nLook at {page}; videos are in {workdir}/reconstruction and {workdir}/animation."
    )


if __name__ == "__main__":
    exit_with_sentence(main)
