"""How do raw videos become shards?

python -m input_pipeline.prepare --input=ROOT --output=SHARDS --size=256
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from input_pipeline.decode import resize_square, stream_frames
from input_pipeline.layout import RawClip, find_clips
from input_pipeline.shards import INDEX, INDEX_VERSION
from maskanim_jax.errors import UserError, exit_with_sentence

REPORT = "report.json"
_SPOOL_BYTES = 64 << 20  # encoded frames of one clip beyond this go to disk


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
) -> dict[str, Any]:
    """Decodes every clip under root/train and root/test to (size, size) frames and writes shards to `output`.

    Clips that cannot be read or have fewer than `min_frames` frames are left out and listed in the report;
    with `strict` the first of them is an error. `output` appears, with parents that are missing, when it is
    complete and not before; with `overwrite` it takes the place of older shards. Beyond 64 MB a clip's encoded frames wait on disk.

    Returns what is also written to output/report.json: {"size", "encoding", "quality", "splits": {split:
    {"clips", "identities", "frames"}}, "skipped": [{"split", "clip", "reason"}], "identities_in_both": [..]}.
    Raises UserError when nothing is readable, a setting is impossible, or `output` cannot be written.
    """
    from input_pipeline.builder import encoder, write_frames

    root, output = Path(root), Path(output)
    if not 8 <= size <= 4096:
        raise UserError(f"--size={size} is out of range; choose from 8 to 4096 pixels")
    if min_frames < 1:
        raise UserError(f"--min_frames={min_frames} is below one; choose 1 or more")
    encode = encoder(encoding, quality)
    _check_output(output, overwrite)
    raw = find_clips(root)
    partial = _partial_folder(output)
    work = _Work(raw, partial, size, encode, min_frames, strict, progress)
    try:
        records = {split: first for split in raw if (first := _peek(work.records(split))) is not None}
        if not records:
            raise UserError(f"no clip under {root} could be read; the first one: {work.skipped[0]['reason']}")
        data = write_frames(partial, size=size, encoding=encoding, splits=records)
        index = {
            "version": INDEX_VERSION,
            "size": size,
            "encoding": encoding,
            "quality": quality if encoding == "jpeg" else None,
            "splits": {
                split: {"frames_sha256": work.digests[split].hexdigest(), "clips": work.clips[split]}
                for split in records
            },
            "shards": {path.name: path.stat().st_size for path in sorted(data.glob("*.array_record*"))},
        }
        report = work.report(index)
        (data / INDEX).write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (data / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        _put_in_place(data, output, partial / "old")
    except OSError as error:
        raise UserError(
            f"{output} could not be written ({error.strerror or error}); free space or choose another"
        ) from error
    finally:
        work.bar.close()
        shutil.rmtree(partial, ignore_errors=True)
    return report


class _Work:
    """What is collected while the builder draws records: clip indices, hashes, skipped clips."""

    def __init__(
        self,
        raw: dict[str, list[RawClip]],
        folder: Path,
        size: int,
        encode: Callable[[np.ndarray], bytes],
        min_frames: int,
        strict: bool,
        progress: bool,
    ) -> None:
        self._raw, self._folder, self._size, self._encode = raw, folder, size, encode
        self._min_frames, self._strict = min_frames, strict
        self.clips: dict[str, list[dict[str, Any]]] = {split: [] for split in raw}
        self.digests = {split: hashlib.sha256() for split in raw}
        self.skipped: list[dict[str, str]] = []
        self._frames = 0
        self.bar = tqdm(total=sum(map(len, raw.values())), desc="prepare", unit="clip", disable=not progress)

    def records(self, split: str) -> Iterator[Any]:
        """The records of all readable clips of a split, each clip after its last frame has been decoded."""
        from input_pipeline.builder import FrameRecord

        first = 0
        for clip in self._raw[split]:
            with tempfile.SpooledTemporaryFile(_SPOOL_BYTES, dir=str(self._folder)) as spool:
                try:
                    fps, lengths = self._spool(clip, spool)
                except UserError as error:
                    if self._strict:
                        raise
                    self.skipped.append({"split": split, "clip": clip.path.name, "reason": str(error)})
                    continue
                finally:
                    self.bar.update()
                entry = {"name": clip.name, "identity": clip.identity, "first": first, "count": len(lengths)}
                self.clips[split].append(entry | {"fps": f"{fps.numerator}/{fps.denominator}"})
                first += len(lengths)
                spool.seek(0)
                for index, length in enumerate(lengths):
                    frame = spool.read(length)
                    self.digests[split].update(hashlib.sha256(frame).digest())
                    yield FrameRecord(
                        frame,
                        clip.name,
                        clip.identity,
                        index,
                        len(lengths),
                        fps.numerator,
                        fps.denominator,
                    )

    def _spool(self, clip: RawClip, spool: IO[bytes]) -> tuple[Fraction, list[int]]:
        fps, frames = stream_frames(clip)
        lengths = []
        for frame in frames:
            lengths.append(spool.write(self._encode(resize_square(frame, self._size))))
            self._frames += 1
            self.bar.set_postfix(frames=self._frames, refresh=False)
        if len(lengths) < self._min_frames:
            plural = "frame" if len(lengths) == 1 else "frames"
            raise UserError(
                f"{clip.path} has {len(lengths)} {plural}, fewer than {self._min_frames}; "
                "give a longer clip or remove it"
            )
        return fps, lengths

    def report(self, index: dict[str, Any]) -> dict[str, Any]:
        identities = {split: {clip["identity"] for clip in clips} for split, clips in self.clips.items()}
        both = set.intersection(*identities.values()) if len(identities) > 1 else set()
        return {
            **{key: index[key] for key in ("size", "encoding", "quality")},
            "splits": {
                split: {
                    "clips": len(clips),
                    "identities": len(identities[split]),
                    "frames": sum(clip["count"] for clip in clips),
                }
                for split, clips in self.clips.items()
            },
            "skipped": self.skipped,
            "identities_in_both": sorted(both),
        }


def _peek(records: Iterator[Any]) -> Iterator[Any] | None:
    """The same records, or None where there are none: tfds refuses an empty split."""
    first = next(records, None)
    return None if first is None else itertools.chain([first], records)


def _check_output(output: Path, overwrite: bool) -> None:
    if not output.exists() and not output.is_symlink():
        return
    if output.is_dir() and not any(output.iterdir()):
        return
    if not (output / INDEX).is_file():
        raise UserError(f"{output} exists and is not a shards folder; choose another --output")
    if not overwrite:
        raise UserError(f"{output} exists; choose another --output, or replace it with --overwrite")


def _partial_folder(output: Path) -> Path:
    """A new hidden folder beside `output`, or where its missing parents will be: the last step is a rename on one file system."""
    parent = output.absolute().parent
    while not parent.exists() and not parent.is_symlink():
        parent = parent.parent
    if not parent.is_dir():
        raise UserError(f"{parent} is not a folder; choose another --output")
    try:
        return Path(tempfile.mkdtemp(prefix=f".{output.name}.partial-", dir=parent))
    except OSError as error:
        raise UserError(f"{parent} cannot be written to ({error.strerror}); choose another --output") from error


def _put_in_place(data: Path, output: Path, old: Path) -> None:
    had = output.exists()
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    if had:
        os.rename(output, old)
    try:
        os.rename(data, output)
    except BaseException:  # Ctrl-C too: the caller is about to remove what lies in `old`
        if had:
            os.rename(old, output)
        raise


def main() -> int:
    """The command line; prints what was written and which clips were left out."""
    parser = argparse.ArgumentParser(
        prog="python -m input_pipeline.prepare",
        description="Turns ROOT/train and ROOT/test (mp4, mov, avi, webm, gif, folders of png or jpg frames, "
        "or one long image of square frames side by side; identity before #) into shards to train on.",
    )
    parser.add_argument("--input", required=True, type=Path, metavar="ROOT", help="folder that holds train/ and test/")
    parser.add_argument("--output", required=True, type=Path, metavar="SHARDS", help="folder to write; must not exist")
    parser.add_argument("--size", type=int, default=256, help="side of the square frames in pixels (default 256)")
    parser.add_argument("--encoding", default="jpeg", choices=("jpeg", "png"), help="jpeg (default), or png: lossless")
    parser.add_argument("--quality", type=int, default=95, help="jpeg quality, 1 to 100 (default 95)")
    parser.add_argument("--min_frames", type=int, default=2, help="leave out clips with fewer frames (default 2)")
    parser.add_argument("--strict", action="store_true", help="stop at the first clip that cannot be read")
    parser.add_argument("--overwrite", action="store_true", help="replace SHARDS once the new ones are complete")
    args = vars(parser.parse_args())
    output = args["output"]
    report = prepare(args.pop("input"), args.pop("output"), **args)
    for split, count in report["splits"].items():
        print(f"{split}: {count['clips']} clips of {count['identities']} identities, {count['frames']} frames")
    if report["identities_in_both"]:
        print(f"careful: in train and in test: {', '.join(report['identities_in_both'])}")
    if report["skipped"]:
        print(f"left out {len(report['skipped'])} clips (also listed in {output / REPORT}):")
        for skip in report["skipped"]:
            print(f"  {skip['split']}: {skip['reason']}")
    print(f"wrote {output}")
    return 0


if __name__ == "__main__":
    exit_with_sentence(main)
