"""How do I turn raw videos into training shards?

python -m input_pipeline.prepare --input=ROOT --output=SHARDS --size=256
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from input_pipeline.preparation.catalog import SETS
from input_pipeline.preparation.download_videos import download
from input_pipeline.preparation.merge import REPORT
from input_pipeline.preparation.pipeline import Job, run, run_check, run_merge, run_share
from input_pipeline.preparation.published_tables import Table, messages, read_table
from input_pipeline.preparation.shard_jobs import Settings
from input_pipeline.preparation.workers import Beam, cores
from maskanim_jax.buckets.address import address_of, shown
from maskanim_jax.errors import UserError, run_main
from maskanim_jax.utils.paths import path_or_bucket, user_path

_SHOWN = 100
"""Maximum number of reasons printed; report.json has all of them."""


def prepare(
    root: Path,
    output: Path,
    *,
    size: int,
    encoding: str = "jpeg",
    quality: int = 95,
    min_frames: int = 2,
    strict: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    name: str = "video_folder",
    boxes: Path | None = None,
    workers: int = 1,
    beam: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Decodes every clip under root/train and root/test to (size, size) frames and
    writes shards to `output`.

    Clips that cannot be read or have fewer than `min_frames` frames are skipped and listed in the
    report; with `strict` the first of them is an error. `boxes` is a table for `boxes.read_boxes`.
    `output` (and missing parents) appears only when it is complete; with `overwrite` it replaces
    older shards. `workers` is a number of processes; `beam` holds arguments of an Apache Beam
    pipeline that does the work instead. The bytes depend on neither, nor on interruptions: finished
    shards are kept in a hidden folder beside `output` and reused.

    Returns the report, which is also written to output/report.json (see `merge.make_report`).
    Raises UserError when no clip is readable, a setting is invalid, or `output` cannot be written.
    """
    settings = Settings(size, encoding, quality, min_frames, strict)
    job = Job(Path(root), settings, name, boxes, workers, None if beam is None else Beam(tuple(beam)), progress)
    return run(job, Path(output), overwrite)


def main() -> int:
    """Runs the command line; prints what was written and which clips were skipped."""
    args = _parser().parse_args()
    table = _table(args)
    settings = Settings(args.size, args.encoding, args.quality, args.min_frames, args.strict)
    beam = None if args.beam is None else Beam(tuple(args.beam.split()))
    name = args.name or (table.of if table is not None and table.of in SETS else "video_folder")
    root = args.input if table is None else args.videos
    job = Job(root, settings, name, args.boxes, args.workers or cores(), beam, metadata=args.metadata)
    if args.check:
        report = run_check(job)
    elif args.output is None:
        raise UserError("--output is missing: give the folder to write, or --check to write nothing")
    elif (address := address_of(args.output)) is not None:
        from input_pipeline.preparation.bucket_output import run_to_bucket

        if args.worker is not None or args.merge:
            raise UserError(
                f"--output={address} cannot be shared by workers: write to a folder on a shared disk, then copy it with "
                "`gcloud storage rsync`"
            )
        report = run_to_bucket(job, address, args.overwrite)
    elif args.worker is not None:
        print(run_share(job, args.output, args.overwrite, _worker(args.worker)))
        return 0
    else:
        report = (run_merge if args.merge else run)(job, args.output, args.overwrite)
    _print(report, None if args.check else args.output)
    return 0


def _table(args: argparse.Namespace) -> Table | None:
    """The published table; downloads its videos if asked.

    Raises UserError for flags that cannot be combined.
    """
    if args.metadata is None:
        if args.videos is not None or args.download:
            raise UserError("--videos and --download need --metadata=CSV, the authors' table")
        if args.input is None:
            raise UserError(
                "--input is missing: give ROOT, or --metadata=CSV and --videos=FOLDER for a published table"
            )
        return None
    if args.videos is None or args.input is not None or args.boxes is not None:
        raise UserError(
            "--metadata needs --videos=FOLDER and cannot be combined with --input or --boxes: the table lists clips and boxes"
        )
    table = read_table(args.metadata)
    if args.download:
        for message in download(table, args.videos):
            print(message, flush=True)
    return table


def _print(report: dict[str, Any], output: Path | None) -> None:
    for split, count in report["splits"].items():
        about = f"{count['clips']} clips of {count['identities']} identities, {count['frames']} frames"
        print(f"{split}: {about}, {count['bytes'] / 1e6:.1f} MB")
    if report["identities_in_both"]:
        print(f"warning: these identities are in more than one split: {', '.join(report['identities_in_both'])}")
    if resampled := report["resampled"]:
        first = resampled[0]
        print(
            f"resampled {len(resampled)} clips of variable frame rate to a constant rate, preserving the timing "
            f"(the first: {first['clip']} to {float(Fraction(first['fps'])):g} frames per second)"
        )
    if report["skipped"]:
        listed = f" (also listed in {shown(output / REPORT)})" if output else ""
        print(f"skipped {len(report['skipped'])} clips{listed}:")
        for skip in report["skipped"][:_SHOWN]:
            print(f"  {skip['split'] or '-'}: {skip['reason']}")
        if len(report["skipped"]) > _SHOWN:
            print(f"  and {len(report['skipped']) - _SHOWN} more")
    for message in messages(report["published"]) if "published" in report else ():
        print(message)
    print(f"wrote {shown(output)}" if output else "checked; nothing was written")


def _worker(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UserError(f"--worker={text} is invalid: give i/n with i from 0 to n - 1, for example 0/4")
    return int(index), int(count)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m input_pipeline.prepare",
        description="Turns ROOT/train, ROOT/test and, if present, ROOT/validation (mp4, m4v, mov, mkv, avi, webm, ts, mts, gif, "
        "folders of png or jpg frames, or one long image of square frames side by side; the identity is the name before #) "
        "into training shards. Finished shards are kept when the command is stopped or killed: repeat it to resume.",
    )
    add = parser.add_argument
    add("--input", type=user_path, metavar="ROOT", help="folder that holds train/ and test/")
    add(
        "--metadata",
        type=user_path,
        metavar="CSV",
        help="instead of --input: the authors' table of clips of Tai-Chi-HD, VoxCeleb or UvA-NEMO",
    )
    add("--videos", type=user_path, metavar="FOLDER", help="with --metadata: folder of the videos, named ID.mp4")
    add(
        "--download",
        action="store_true",
        help="with --metadata: download missing videos with yt-dlp, or write a list of their URLs",
    )
    add(
        "--output",
        type=path_or_bucket,
        metavar="SHARDS",
        help="folder to write, or gs://BUCKET/SHARDS; must not exist",
    )
    add("--name", help=f"name of the set: {', '.join(SETS)} (default video_folder, or the table's data set)")
    add("--size", type=int, default=256, help="side of the square frames in pixels (default 256)")
    add(
        "--boxes",
        type=user_path,
        metavar="CSV",
        help="table of parts to keep: clip,start,end,x0,y0,x1,y1 (default: centre crop)",
    )
    add("--encoding", default="jpeg", choices=("jpeg", "png"), help="jpeg (default) or png (lossless)")
    add("--quality", type=int, default=95, help="jpeg quality, 1 to 100 (default 95)")
    add("--min_frames", type=int, default=2, help="skip clips with fewer frames (default 2)")
    add("--strict", action="store_true", help="stop at the first unreadable clip")
    add("--overwrite", action="store_true", help="replace existing SHARDS once the new ones are complete")
    add("--workers", type=int, default=0, help="number of processes (default: one per core)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--check", action="store_true", help="read everything and report which clips would be skipped; write nothing"
    )
    how.add_argument(
        "--worker", metavar="i/n", help="make only the shards of worker i of n (0 to n - 1); afterwards run --merge"
    )
    how.add_argument(
        "--merge", action="store_true", help="verify the shards of all workers and merge them into one set"
    )
    how.add_argument(
        "--beam",
        nargs="?",
        const="",
        metavar="ARGUMENTS",
        help='run on Apache Beam, e.g. --beam="--runner=FlinkRunner"',
    )
    return parser


if __name__ == "__main__":
    run_main(main)
