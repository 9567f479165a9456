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
        description="Writes one HTML page on a run: curves, pictures, figures, settings; or, of several runs, their figures side by side.",
    )
    parser.add_argument("runs", type=path_or_bucket, nargs="*", metavar="RUN", help="folders of runs to compare")
    parser.add_argument("--workdir", type=path_or_bucket, help="folder of one run, for the page on it alone")
    parser.add_argument(
        "--output",
        type=user_path,
        help="of one run a file (default: report.html in the workdir); of several a folder or an .html (default: comparison/)",
    )
    given = parser.parse_args(arguments)
    if bool(given.runs) == bool(given.workdir):
        raise UserError("give --workdir=RUN for the page on one run, or the folders of several runs")
    if given.workdir:
        print(f"the report is {shown(write_report(given.workdir, given.output))}")
        return
    from maskanim_jax.reports import comparison_page

    written = comparison_page.write_comparison(given.runs, given.output or Path("comparison"))
    print(f"the report is {written.page}; its figures are in {written.csv} and {written.json}")


if __name__ == "__main__":
    run_main(main)
