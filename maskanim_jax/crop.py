"""How is the square around a clip's subject cropped? See `python -m maskanim_jax.crop --help`.

The networks expect a subject that fills a square frame. `input_pipeline.preparation.subject`
finds it. The command writes the crops, and the table of boxes for `python -m
input_pipeline.prepare --boxes`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from input_pipeline.preparation.boxes import COLUMNS, Box, key_of
from input_pipeline.preparation.cropping import PICTURE_FORMATS, output_names, write_boxes, write_crop
from input_pipeline.preparation.subject import Finder, Found, find_parts
from maskanim_jax.errors import UserError, run_main
from maskanim_jax.utils.paths import user_path, user_text
from maskanim_jax.video.writer import check_writable


def _box(text: str) -> Box:
    try:
        x0, y0, x1, y1 = (int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not x0,y0,x1,y1 in whole pixels") from None
    return (x0, y0, x1, y1)


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(
        prog="python -m maskanim_jax.crop",
        description="Finds the subject of videos or pictures; writes the square crop and the table of boxes for prepare.",
    )
    add = flags.add_argument
    add(
        "--input",
        type=user_path,
        nargs="+",
        required=True,
        metavar="IN",
        help="videos, gifs, folders of frames, pictures",
    )
    add(
        "--output",
        type=user_text,
        metavar="OUT",
        help="*.mp4, *.mov, *.gif, FOLDER/ for png frames, or *.png for a picture; a folder for several inputs",
    )
    add("--csv", type=user_path, metavar="CSV", help=f"table of boxes: {','.join(COLUMNS)}")
    add(
        "--finder",
        choices=get_args(Finder),
        default="auto",
        help="how the subject is found (default auto: by a face if there is one, else by motion)",
    )
    add("--box", type=_box, metavar="X0,Y0,X1,Y1", help="the subject's box in pixels, instead of a search")
    add(
        "--margin",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="margin on each side, as a share of the subject's size (default 0.1)",
    )
    add("--size", type=int, metavar="N", help="side of the written crop in pixels (default: as in the input)")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """The command; raises UserError."""
    args = parser().parse_args(argv)
    if not args.output and not args.csv:
        raise UserError("nothing to write: give --output for the crop, --csv for the table of boxes, or both")
    if args.size is not None and not 2 <= args.size <= 8192:
        raise UserError(f"--size={args.size} must be 2 to 8192 pixels")
    several = len(args.input) > 1
    names = [key_of(path.name) for path in args.input]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise UserError(f"two inputs are called {double}, but names must be unique; rename one of them")
    if several and args.output and Path(args.output).is_file():
        raise UserError(f"{args.output} is a file, but several inputs need a folder; give --output=FOLDER/")
    if args.output and not several and Path(args.output).suffix.lower() not in PICTURE_FORMATS:
        check_writable(args.output)  # fails before the work starts
    found: dict[str, Found] = {}
    failed: list[str] = []
    for path in args.input:
        try:
            found[path.name] = clip = find_parts(path, args.finder, args.margin, args.box, progress=True)
            for warning in clip.warnings:
                print(f"warning: {path}: {warning}", file=sys.stderr)
            outputs = output_names(args.output, path, clip, several) if args.output else [""] * len(clip.parts)
            for part, output in zip(clip.parts, outputs, strict=True):
                if output:
                    write_crop(path, output, clip, part, args.size)
                print(
                    f"{path}: frames {part.start} to {part.end - 1}, box {part.box} by {clip.finder} {output}".rstrip()
                )
        except UserError as error:
            if not several:
                raise
            failed.append(str(error))
            found.pop(path.name, None)
            print(f"error: {error}", file=sys.stderr)
    if args.csv and found:
        write_boxes(args.csv, found)
    if failed:
        raise UserError(f"{len(failed)} of {len(args.input)} inputs were skipped; the first because {failed[0]}")
    return 0


if __name__ == "__main__":
    run_main(main)
