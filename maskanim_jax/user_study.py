"""Which system do people prefer?

The command makes the page that asks, and tallies the answers. See `python -m
maskanim_jax.user_study --help` and docs/user-study.md.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Sequence

from maskanim_jax.errors import UserError, run_main
from maskanim_jax.evaluation.user_study import Cell, _write, read_trials, table, tally, write_study
from maskanim_jax.utils.paths import user_path


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(
        prog="python -m maskanim_jax.user_study",
        description="Makes a blind page that asks which system's video is better (--trials), or tallies its answers (--tally).",
    )
    add = flags.add_argument
    add(
        "--trials",
        type=user_path,
        metavar="CSV",
        help="columns dataset,source,driving and one per system: paths of videos",
    )
    add(
        "--data",
        type=user_path,
        metavar="ROOT",
        help="base folder of the table's relative paths (default: the table's folder)",
    )
    add(
        "--output",
        type=user_path,
        required=True,
        metavar="OUT",
        help="the page, *.html; with --tally the table, *.csv (a *.json beside it)",
    )
    add(
        "--key",
        type=user_path,
        metavar="JSON",
        help="the key that maps choices to systems; keep it private (default: OUT's name with -key.json)",
    )
    add("--title", default="", help="heading of the page; do not name a system in it")
    add(
        "--per_dataset",
        type=int,
        metavar="N",
        help="questions per data set and participant (default: all; the paper: 1)",
    )
    add("--seed", type=int, default=0, help="random seed of the questions, their order and the bootstrap")
    add("--tally", type=user_path, nargs="+", metavar="JSON", help="the participants' answers; needs --key")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """The command; raises UserError."""
    args = parser().parse_args(argv)
    if bool(args.trials) == bool(args.tally):
        raise UserError("give --trials=CSV to make a page, or --tally ANSWERS.json ... --key=KEY.json to count")
    if args.trials:
        if args.output.suffix.lower() not in (".html", ".htm"):
            raise UserError(f"{args.output} is not an HTML file; end it with .html")
        key = args.key or args.output.with_name(f"{args.output.stem}-key.json")
        trials = read_trials(args.trials, args.data)
        write_study(trials, args.output, key, args.seed, args.per_dataset, args.title)
        print(
            f"{args.output}: {len(trials)} questions, videos inside; the key is {key}: do not give it to participants"
        )
        return 0
    if not args.key:
        raise UserError("--tally needs --key=JSON, the file that was written with the page")
    if args.output.suffix.lower() != ".csv":
        raise UserError(f"{args.output} is not a CSV file; end it with .csv")
    cells = tally(args.key, args.tally, args.seed)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([Cell._fields, *cells])
    _write(args.output, text.getvalue())
    _write(args.output.with_suffix(".json"), json.dumps([cell._asdict() for cell in cells], indent=2) + "\n")
    print(table(cells))
    print(
        f"\n{len(args.tally)} participants; in brackets 95% Wilson intervals; bootstrap over participants in {args.output}"
    )
    return 0


if __name__ == "__main__":
    run_main(main)
