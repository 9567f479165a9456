"""How is the whole study reproduced? `python -m maskanim_jax.study --workdir=FOLDER` trains both
systems, evaluates them and writes the comparison.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from maskanim_jax.buckets.local_paths import in_words, opened
from maskanim_jax.errors import UserError, check_at_least, run_main
from maskanim_jax.reports.study import REPORT, SETS, chosen_sets, measured_runs, plan, run_study
from maskanim_jax.utils.paths import path_or_bucket, user_path


def parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    flags = argparse.ArgumentParser(
        prog="python -m maskanim_jax.study",
        description="Trains Perturbed Masks and FOMM on the same pairs, measures both, and compares them. Resumes where it was stopped. "
        "Flags --config.a.b=c are passed to every training.",
        allow_abbrev=False,
    )
    flags.add_argument(
        "--workdir", type=path_or_bucket, required=True, help="folder of the study: SET-SYSTEM/, report/"
    )
    flags.add_argument("--sets", default=",".join(SETS), help=f"comma separated (default: {','.join(SETS)})")
    flags.add_argument("--name", default="own", help="name of the set that --config makes (default: own)")
    flags.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help="a config of your own set, instead of --sets; may be repeated",
    )
    flags.add_argument(
        "--data",
        type=path_or_bucket,
        metavar="FOLDER",
        help="folder with the shards puppets64v2, mgif64, faces64 (default: data)",
    )
    flags.add_argument(
        "--steps", type=int, metavar="N", help="train this many steps instead of those of the configs, for a quick test"
    )
    flags.add_argument("--seeds", default="0", help="comma separated (default: 0); one run per seed")
    flags.add_argument(
        "--pairs", type=int, default=20, metavar="N", help="pairs of the cross-identity evaluation (default 20)"
    )
    flags.add_argument("--frames", type=int, default=8, metavar="N", help="frames of each pair (default 8)")
    flags.add_argument(
        "--page",
        type=user_path,
        metavar="FILE.md",
        help="also regenerate the tables, curves and strips of this page, for all measured runs in WORKDIR",
    )
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """The command; raises UserError."""
    args, rest = parser().parse_known_args(argv)
    if unknown := [flag for flag in rest if not flag.startswith("--config.") or "=" not in flag]:
        raise UserError(f"'{unknown[0]}' is an unknown flag: --help shows the flags")
    try:
        seeds = [int(seed) for seed in args.seeds.split(",")]
    except ValueError as error:
        raise UserError(f"--seeds={args.seeds} must be whole numbers such as 0,1,2") from error
    for name, value, least in (("steps", args.steps, 1), ("pairs", args.pairs, 1), ("frames", args.frames, 2)):
        check_at_least(f"--{name}", value, least)
    runs = plan(args.workdir, chosen_sets(args), data=args.data, steps=args.steps, seeds=seeds, overrides=rest)
    run_study(runs, pairs=args.pairs, frames=args.frames)
    from maskanim_jax.reports import comparison_page, study_page

    with opened(
        args.workdir
    ) as workdir:  # in a bucket: one working copy for all runs, since the page links to their videos
        folders = measured_runs(workdir, [workdir / run.name for run in runs])
        written = comparison_page.write_comparison(folders, workdir / REPORT)
        page, csv, json = (in_words(path) for path in (written.page, written.csv, written.json))
        print(f"the report is {page}; its numbers are in {csv} and {json}")
        if args.page:
            study_page.regenerate(args.page, folders, written.figures)
            print(f"updated {args.page}")
    return 0


if __name__ == "__main__":
    run_main(main)
