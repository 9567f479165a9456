"""How is the report of a run, or a comparison of several, written?

See `python -m maskanim_jax.report --help`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from maskanim_jax.buckets.address import shown
from maskanim_jax.errors import UserError, run_main
from maskanim_jax.reports.run_page import write_report
from maskanim_jax.utils.paths import path_or_bucket, user_path


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m maskanim_jax.report",
        description="Writes one HTML page about a run: curves, pictures, metrics, settings; or for several runs, their metrics side by side.",
    )
    parser.add_argument("runs", type=path_or_bucket, nargs="*", metavar="RUN", help="folders of runs to compare")
    parser.add_argument("--workdir", type=path_or_bucket, help="folder of one run, for a page about it")
    parser.add_argument(
        "--output",
        type=user_path,
        help="for one run a file (default: report.html in the workdir); for several a folder or an .html file (default: comparison/)",
    )
    given = parser.parse_args(arguments)
    if bool(given.runs) == bool(given.workdir):
        raise UserError("give --workdir=RUN for a page about one run, or the folders of several runs to compare")
    if given.workdir:
        print(f"the report is {shown(write_report(given.workdir, given.output))}")
        return
    from maskanim_jax.reports import comparison_page

    written = comparison_page.write_comparison(given.runs, given.output or Path("comparison"))
    print(f"the report is {written.page}; its numbers are in {written.csv} and {written.json}")


if __name__ == "__main__":
    run_main(main)
