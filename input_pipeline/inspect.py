"""What is in a folder of shards? Prints counts and sizes, and draws a contact sheet.

python -m input_pipeline.inspect SHARDS
"""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from input_pipeline.shards import Split, open_split, read_index
from maskanim_jax.buckets.address import address_of, shown
from maskanim_jax.errors import UserError, check_at_least, run_main
from maskanim_jax.utils.paths import hidden_beside, path_or_bucket, user_path
from maskanim_jax.utils.progress import ProgressBar

_THUMB = 96  # pixels; smaller frames are shown as they are
_CAPTION = 16


def describe(shards: Path) -> list[str]:
    """Describes the data set and its splits, one line each.

    Raises UserError for a folder that is not a complete set.
    """
    index = read_index(shards)
    stored = index["encoding"] + (f" at quality {index['quality']}" if index.get("quality") else ", lossless")
    sizes = sum(index["shards"].values())
    lines = [
        f"{shards}: {index.get('name', 'frames')}, frames of {index['size']} x {index['size']} pixels, {stored}; "
        f"{len(index['shards'])} shards, {sizes / 1e6:.1f} MB"
    ]
    for name in index["splits"]:
        split = open_split(shards, name)
        counts = [clip.count for clip in split.clips]
        rates = sorted({clip.fps for clip in split.clips})
        shown = ", ".join(f"{float(rate):.5g}" for rate in (rates if len(rates) <= 6 else [rates[0], rates[-1]]))
        shown = shown if len(rates) <= 6 else f"{len(rates)} rates, {shown.replace(', ', ' to ')}"
        lines.append(
            f"{name}: {len(counts)} clips of {len({clip.identity for clip in split.clips})} identities, {sum(counts)} frames; a clip has "
            f"{min(counts)} to {max(counts)} (median {median(counts):g}); frames per second: {shown}"
        )
    return lines


def contact_sheet(splits: list[Split], clips: int, frames: int) -> Image.Image:
    """Draws evenly spaced clips of each split, one row each: the clip's name and `frames`
    frames from first to last.
    """
    font = ImageFont.load_default(11)
    rows: list[Image.Image] = []
    for split in splits:
        side = min(_THUMB, split.size)
        for number in _spread(len(split.clips), clips):
            clip = split.clips[number]
            row = Image.new("RGB", (frames * side, side + _CAPTION), "white")
            text = f"{split.name}  {clip.name}  {clip.count} frames"
            ImageDraw.Draw(row).text((2, 1), text, "black", font)
            for column, index in enumerate(_spread(clip.count, frames)):
                thumb = Image.fromarray(split.frame(number, index)).resize((side, side), Image.Resampling.LANCZOS)
                row.paste(thumb, (column * side, _CAPTION))
            rows.append(row)
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def verify(shards: Path) -> int:
    """Reads every frame, compares it with the hash taken when it was written, and
    returns the number of frames.

    Raises UserError that names the shard, and the clip, that is damaged.
    """
    import tensorflow_datasets as tfds

    index = read_index(shards)
    total = sum(clip["count"] for split in index["splits"].values() for clip in split["clips"])
    with ProgressBar(total=total, desc="verify", unit="frame") as bar:
        for name, split in index["splits"].items():
            opened = open_split(shards, name)
            builder = tfds.builder_from_directory(str(shards))
            source = builder.as_data_source(name, decoders={"frame": tfds.decode.SkipDecoding()})
            for number, clip in enumerate(split["clips"]):
                digest = hashlib.sha256()
                for index_in_clip in range(clip["count"]):
                    opened.frame(number, index_in_clip)  # raises an error that names the shard
                    digest.update(_encoded(source[clip["first"] + index_in_clip]))
                    bar.update()
                if "sha256" in clip and digest.hexdigest() != clip["sha256"]:
                    raise UserError(
                        f"{shards}: the frames of {name} clip {clip['name']} differ from what was written; prepare the set again"
                    )
    return total


def main() -> int:
    """Runs the command line: prints the description and writes the contact sheet."""
    parser = argparse.ArgumentParser(
        prog="python -m input_pipeline.inspect",
        description="Prints what is in a folder of shards and draws a contact sheet.",
    )
    parser.add_argument(
        "shards",
        type=path_or_bucket,
        metavar="SHARDS",
        help="a folder that python -m input_pipeline.prepare wrote, or gs://BUCKET/SHARDS",
    )
    parser.add_argument(
        "--sheet", type=user_path, metavar="PNG", help="contact sheet to write (default: SHARDS-contact.png)"
    )
    parser.add_argument("--clips", type=int, default=12, help="clips per split on the sheet (default 12)")
    parser.add_argument("--frames", type=int, default=8, help="frames per clip on the sheet (default 8)")
    parser.add_argument("--verify", action="store_true", help="also read every frame and compare its hash")
    args = parser.parse_args()
    check_at_least("--clips", args.clips)
    check_at_least("--frames", args.frames)
    shards, target = args.shards, args.sheet
    if (address := address_of(shards)) is not None:
        from input_pipeline.shard_cache import fetch_shards

        shards = fetch_shards(address)  # only the shards that are read are fetched; --verify reads all
        target = target or Path(f"{args.shards.name}-contact.png")
    for line in describe(shards):
        print(line.replace(str(shards), shown(args.shards)))
    sheet = contact_sheet([open_split(shards, name) for name in read_index(shards)["splits"]], args.clips, args.frames)
    target = target or shards.absolute().with_name(f"{shards.absolute().name}-contact.png")
    try:
        partial = hidden_beside(target, str(os.getpid()))
        sheet.save(partial, "PNG")
        partial.replace(target)
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error.strerror or error}); choose another --sheet") from error
    print(f"contact sheet: {target}")
    if args.verify:
        print(f"verified: all {verify(shards)} frames are as they were written")
    return 0


def _spread(count: int, wanted: int) -> list[int]:
    """Up to `wanted` distinct, evenly spaced numbers from 0 to count - 1, both ends included."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, wanted)).round()})


def _encoded(record: dict[str, Any]) -> bytes:
    return bytes(record["frame"])


if __name__ == "__main__":
    run_main(main)
