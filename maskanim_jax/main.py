"""How do I train a system, reconstruct test clips and animate them?

python -m maskanim_jax.main --config=configs/taichi.py --workdir=DIR
    [--mode=train|reconstruct|animate|all] [--config.a.b=c]

Without --config, the workdir's run resumes with its own config. Exit status: 0 done, 2 an error,
explained in one sentence, 75 stopped by SIGTERM and saved (start it again), 130 the same by Ctrl-C.
`--mode=replay --step=N` repeats one step of a run and shows its details.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from maskanim_jax.buckets.address import shown
from maskanim_jax.errors import UserError, run_main
from maskanim_jax.utils.memory import reexec_with_huge_pages
from maskanim_jax.utils.paths import expand_flags
from maskanim_jax.workdir.config_files import find_config_flag
from maskanim_jax.workdir.renamed_fields import refuse_old_names
from maskanim_jax.workdir.results import ANIMATION, reconstruction_stem
from maskanim_jax.workdir.saved_config import take_saved_config

HELP = ("--help", "-h", "-help", "--helpfull", "--helpshort")
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "a file of configs/, optionally followed by :ARGUMENT", lock_config=True
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder of the run, or gs://BUCKET/RUN, for checkpoints, log, results and report"
)
MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "reconstruct", "animate", "all", "replay"],
    "what to do; all: the first three in order; replay: repeat one step of the run (--step)",
)
STEP = flags.DEFINE_integer("step", None, "the step that --mode=replay repeats", lower_bound=1)
ALLOW_CONFIG_CHANGE = flags.DEFINE_bool(
    "allow_config_change", False, "resume although the workdir's run had another config or other data"
)
RESTORE_STEP = flags.DEFINE_integer(
    "restore_step",
    None,
    "resume from this checkpoint; later ones are moved to the workdir's set_aside",
    lower_bound=0,
)


def parse(argv: list[str]) -> None:
    """Parses the command line; raises UserError for anything invalid,
    including misspelt config fields.
    """
    refuse_old_names(argv[1:])
    expand_flags(argv, ("workdir", "config"), ("config.",))
    find_config_flag(argv)
    take_saved_config(argv)
    try:
        rest = flags.FLAGS(argv)[1:]
        config = CONFIG.value
        if config is not None and not callable(getattr(config, "to_dict", None)):
            raise ValueError("its get_config returns something else")
        if config is not None:
            config.to_dict()  # raises if the file could not be loaded
    except flags.Error as error:
        raise UserError(f"{str(error).splitlines()[0]}; --help shows the flags") from error
    except (AttributeError, KeyError, TypeError) as error:  # an unknown field, or a value of another type
        message = str(error).replace("\\n", " ").replace("\\'", "'").strip("'\" ")
        raise UserError(f"a --config.* flag is invalid: {' '.join(message.splitlines())}") from error
    except UserError:
        raise
    except Exception as error:  # a config is code and may raise anything
        path = next((argument for argument in argv if argument.startswith("--config")), "--config")
        raise UserError(f"{path} is not a readable config file: give one such as configs/demo.py") from error
    if rest:
        raise UserError(f"'{rest[0]}' is an unknown flag: --help shows the flags")
    if config is None:
        raise UserError(
            "--config is missing: give a file such as configs/demo.py, or the --workdir of a run to resume it"
        )
    if not WORKDIR.value:
        raise UserError("--workdir is missing: give a folder for the run")
    if RESTORE_STEP.value is not None and MODE.value not in ("train", "all"):
        raise UserError(f"--restore_step={RESTORE_STEP.value} is for training: omit it with --mode={MODE.value}")
    if (MODE.value == "replay") != (STEP.value is not None):
        raise UserError("--step and --mode=replay must be given together; --step is the step of the run to repeat")


def main() -> None:
    """Runs the command line."""
    if any(argument in HELP for argument in sys.argv[1:]):
        print(f"{(__doc__ or '').strip()}\n\nFlags:\n{flags.FLAGS.module_help(sys.modules[__name__])}")
        return
    parse(sys.argv)
    logging.set_verbosity(logging.WARNING)
    from maskanim_jax.distributed import setup
    from maskanim_jax.evaluation import evaluate_run, followed
    from maskanim_jax.reports import run_page
    from maskanim_jax.training import loop

    setup.configure_jax(CONFIG.value)
    workdir = Path(str(WORKDIR.value))
    if MODE.value == "replay":
        from maskanim_jax.training.replay import replay

        print(replay(CONFIG.value, workdir, int(STEP.value or 0)))
        return
    steps: dict[str, Callable[..., object]] = {
        "train": functools.partial(
            loop.train, allow_config_change=ALLOW_CONFIG_CHANGE.value, restore_step=RESTORE_STEP.value
        ),
        "before": followed.measure_before,
        "reconstruct": evaluate_run.reconstruct_test,
        "animate": evaluate_run.animate_test,
        "followed": followed.measure_followed,
    }
    done = {name: step(CONFIG.value, workdir) for name, step in steps.items() if MODE.value in (name, "all")}
    page = run_page.write_report(workdir)
    folders = {"reconstruct": reconstruction_stem(CONFIG.value.reconstruct.split), "animate": ANIMATION}
    videos = " and ".join(f"{shown(workdir)}/{folder}" for name, folder in folders.items() if name in done)
    print(f"\n{run_page.summary(workdir)}\nThe report is {shown(page)}{videos and '; videos are in '}{videos}.")
    if isinstance(verdict := done.get("followed"), followed.Verdict):
        print(verdict.sentence)


if __name__ == "__main__":
    reexec_with_huge_pages()
    run_main(main)
