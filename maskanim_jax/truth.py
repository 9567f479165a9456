"""How well does animation by another identity match the ground truth?

Run `python -m maskanim_jax.truth --workdir=RUN` on puppets; see docs/study.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from maskanim_jax.buckets.local_paths import in_words, opened
from maskanim_jax.errors import UserError, check_at_least, run_main
from maskanim_jax.evaluation.cross_identity import measure_cross_identity, table
from maskanim_jax.utils.paths import path_or_bucket, user_path
from maskanim_jax.workdir.results import TRUTH

if TYPE_CHECKING:
    pass


def parse_more(given: Sequence[str]) -> dict[str, dict[str, str]]:
    """Parses `NAME:option=value,option=value` to (name, options); raises
    UserError for another form.
    """
    found: dict[str, dict[str, str]] = {}
    for text in given:
        name, colon, rest = text.partition(":")
        options = dict(part.split("=", 1) for part in rest.split(",") if "=" in part)
        if not (name and colon and options) or len(options) != len(rest.split(",")):
            raise UserError(f"--variant={text} cannot be read: give NAME:option=value,option=value")
        found[name] = options
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The command; raises UserError."""
    flags = argparse.ArgumentParser(
        prog="python -m maskanim_jax.truth",
        description="Animates held-out puppets by others and compares with the ground truth; writes truth.json into the run's folder.",
    )
    flags.add_argument(
        "--workdir", type=path_or_bucket, required=True, help="folder of a run on puppets, or a checkpoint in it"
    )
    flags.add_argument("--pairs", type=int, default=20, metavar="N", help="pairs of a source and a driver (default 20)")
    flags.add_argument(
        "--frames", type=int, default=8, metavar="N", help="evenly spaced frames of each driver (default 8)"
    )
    flags.add_argument("--seed", type=int, default=0, help="seed of the choice of pairs (default 0)")
    flags.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="NAME:option=value,...",
        help="an additional variant, with the options of python -m maskanim_jax.animate; may be repeated",
    )
    which = flags.add_mutually_exclusive_group()
    which.add_argument(
        "--split", choices=("test", "validation"), default="test", help="split of the run's puppets (default test)"
    )
    which.add_argument(
        "--world",
        type=int,
        metavar="N",
        help="measure on unseen puppets and poses drawn with this number, including their reconstruction",
    )
    flags.add_argument(
        "--output",
        type=user_path,
        help=f"default: {TRUTH} in the run's folder, with a split or world other than the default in its name; none for a bundled checkpoint",
    )
    args = flags.parse_args(argv)
    for name, least in (("pairs", 1), ("frames", 2), ("seed", 0), ("world", 0)):
        if getattr(args, name) is not None:
            check_at_least(f"--{name}", getattr(args, name), least)
    more = parse_more(args.variant)
    from maskanim_jax.checkpoints.bundled import is_bundled
    from maskanim_jax.checkpoints.loading import load_run, saved_config
    from maskanim_jax.distributed import setup
    from maskanim_jax.evaluation import puppet_worlds
    from maskanim_jax.evaluation.reconstruction import write_figures

    with opened(args.workdir) as args.workdir:
        setup.configure_jax(saved_config(args.workdir))
        run = load_run(args.workdir)
        figures = measure_cross_identity(
            run,
            pairs=args.pairs,
            frames=args.frames,
            seed=args.seed,
            more=more,
            split=args.split,
            world=args.world,
            progress=True,
        )
        shown = table(figures) if args.world is None else puppet_worlds.table(figures)
        print(f"{shown}\n{len(figures['rows'][0]['pairs'])} pairs, the checkpoint of step {run.step}")
        if args.output is None and is_bundled(args.workdir):
            return 0
        other = "" if args.split == "test" else f"_{args.split}"
        other = other if args.world is None else f"_world{args.world}"
        output = args.output or (args.workdir / TRUTH.replace(".json", f"{other}.json"))
        try:
            write_figures(output, figures)
        except OSError as error:
            raise UserError(f"{output} can't be written ({error.strerror}): give another --output") from error
        print(f"written to {in_words(output)}")
        return 0


if __name__ == "__main__":
    run_main(main)
