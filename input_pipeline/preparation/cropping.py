"""How are a cropped clip and the table of its boxes written?"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from input_pipeline.preparation.boxes import COLUMNS, crop_square
from input_pipeline.preparation.subject import Found, Part
from maskanim_jax.errors import UserError
from maskanim_jax.utils.atomic_files import atomic_write
from maskanim_jax.utils.progress import ProgressBar
from maskanim_jax.video.images import is_image
from maskanim_jax.video.reader import open_frames
from maskanim_jax.video.writer import VideoWriter, is_folder

PICTURE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def write_crop(path: Path, output: str, found: Found, part: Part, side: int | None = None) -> None:
    """Writes the square `part.box` of the frames of `part` to `output`, `side` pixels
    wide (None: not resized).

    Frames keep their timestamps. The sound is kept if the part starts at the clip's first frame. A
    single image is written as PNG, JPEG or WEBP. An existing file is replaced only when the new one
    is complete. Raises UserError when a file cannot be read or written.
    """
    side = side or part.box[2] - part.box[0]
    with open_frames(path) as frames:
        if found.length == 1 and Path(output).suffix.lower() in PICTURE_FORMATS:
            _write_picture(crop_square(next(iter(frames)), part.box, side), Path(output))
            return
        sound = path if path.is_file() and not is_image(path) and part.start == 0 else None
        cut = part.end < found.length
        timing = frames.timing.cut(part.start, whole=not cut)
        with VideoWriter(output, timing, sound, cut=cut) as writer:
            for index, frame in enumerate(ProgressBar(frames, f"cropping {path.name}", found.length, unit="frame")):
                if index >= part.end:
                    break
                if index >= part.start:
                    writer.write(crop_square(frame, part.box, side))
        if writer.note:
            ProgressBar.write(f"{output}: {writer.note}")


def write_boxes(output: Path, found: dict[str, Found]) -> None:
    """Writes the table for `prepare --boxes`, one row for each part; `found` is keyed
    by the clip's file name.

    A part that spans the whole clip has empty `start` and `end`, so that the clip keeps its name.
    Raises UserError if the file cannot be written.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(output) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(COLUMNS)
            for name, clip in found.items():
                for part in clip.parts:
                    whole = len(clip.parts) == 1
                    table.writerow([name, "" if whole else part.start, "" if whole else part.end, *part.box])
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror}); give another --csv") from error


def _write_picture(picture: np.ndarray, output: Path) -> None:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(output) as temporary:
            Image.fromarray(picture).save(temporary, format=PICTURE_FORMATS[output.suffix.lower()], quality=95)
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror}); give another --output") from error


def output_names(output: str, path: Path, found: Found, several: bool) -> list[str]:
    """One output name for each part; for several inputs, files in the folder
    `output` named like the inputs.
    """
    if several:
        output = str(Path(output) / (path.stem + (".png" if is_image(path) else ".mp4")))
    if len(found.parts) == 1:
        return [output]
    target = Path(output)
    end = "/" if is_folder(output) else target.suffix
    return [str(target.with_name(f"{target.stem}-{p.start}-{p.end}")) + end for p in found.parts]
