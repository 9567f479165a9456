"""How do finished parts become one set of shards? Each is checked against its note, then named, counted and described."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from input_pipeline.preparation.shard_jobs import Note, Part, Settings, finished, key_of_part, write_json
from input_pipeline.shards import INDEX, INDEX_VERSION
from maskanim_jax.errors import UserError
from maskanim_jax.utils.atomic_files import sha256_of

REPORT = "report.json"
Counts = dict[str, tuple[list[int], int]]
"""Of each split: the records of each shard, and the bytes of all records."""


def finished_notes(parts: Sequence[Part], settings: Settings, folder: Path) -> list[Note]:
    """The notes of all parts. Raises UserError when one is missing, or was made from other clips, settings or library versions."""
    notes, absent = [], []
    for part in parts:
        note = finished(part, key_of_part(part, settings), folder)
        if note is None:
            absent.append(part.stem)
        else:
            notes.append(note)
    if absent:
        raise UserError(
            f"{len(absent)} of {len(parts)} shards in {folder} are missing or were made from other clips or settings "
            f"(the first: {absent[0]}); run their --worker again with the options of this command"
        )
    return notes


def merge(
    parts: Sequence[Part],
    notes: Sequence[Note],
    settings: Settings,
    folder: Path,
    data: Path,
    name: str,
    left_out: list[dict[str, str]],
    progress: bool,
    beside: Callable[[dict[str, Any]], dict[str, Any]] = lambda report: {},
) -> tuple[dict[str, Any], Counts]:
    """Moves the parts of `folder` into `data` as shards of the set `name`, and writes clips.json and report.json beside them.

    `beside` gets the report and returns what else it shall say.
    Returns the report, and what tfds must be told about the splits. Shards without a record are dropped.
    Raises UserError when a part's bytes are not those that its note states.
    """
    from input_pipeline.preparation.shard_writer import shard_name

    splits: dict[str, Any] = {}
    counts: Counts = {}
    shards: dict[str, int] = {}
    bar = tqdm(total=len(parts), desc="verify", unit="shard", disable=not progress)
    with bar:
        for split in dict.fromkeys(part.split for part in parts):
            filled = [(p, n) for p, n in zip(parts, notes, strict=True) if p.split == split and n["records"]]
            if not filled:
                continue
            first, entries, digest = 0, [], hashlib.sha256()
            for number, (part, note) in enumerate(filled):
                path = folder / f"{part.stem}.array_record"
                if sha256_of(path) != note["sha256"]:
                    raise UserError(f"{path} has changed since it was written; remove it and start again")
                shards[shard_name(name, split, number, len(filled))] = note["file_bytes"]
                _place(path, data / shard_name(name, split, number, len(filled)))
                bar.update()
                for clip in note["clips"]:
                    entries.append({"name": clip["name"], "identity": clip["identity"], "first": first} | clip)
                    first += clip["count"]
                    digest.update(bytes.fromhex(clip["sha256"]))
            splits[split] = {"frames_sha256": digest.hexdigest(), "clips": entries}
            counts[split] = ([note["records"] for _, note in filled], sum(note["bytes"] for _, note in filled))
    index = {
        "version": INDEX_VERSION,
        "name": name,
        "size": settings.size,
        "encoding": settings.encoding,
        "quality": settings.quality if settings.encoding == "jpeg" else None,
        "splits": splits,
        "shards": shards,
    }
    report = make_report(parts, notes, settings, name, left_out)
    report |= beside(report)
    write_json(data / INDEX, index)
    write_json(data / REPORT, report)
    return report, counts


def make_report(
    parts: Sequence[Part], notes: Sequence[Note], settings: Settings, name: str, left_out: list[dict[str, str]]
) -> dict[str, Any]:
    """{"name", "size", "encoding", "quality", "splits": {split: {"clips", "identities", "frames", "bytes"}}, "skipped": [{"split", "clip",
    "reason"}], "resampled": [{"split", "clip", "fps"}], "identities_in_both": [..]}; splits without a readable clip are not listed."""
    splits: dict[str, Any] = {}
    people: dict[str, set[str]] = {}
    for part, note in zip(parts, notes, strict=True):
        if not note["clips"]:
            continue
        counted = splits.setdefault(part.split, {"clips": 0, "identities": 0, "frames": 0, "bytes": 0})
        counted["clips"] += len(note["clips"])
        counted["frames"] += note["records"]
        counted["bytes"] += note["bytes"]
        people.setdefault(part.split, set()).update(clip["identity"] for clip in note["clips"])
        counted["identities"] = len(people[part.split])
    return {
        "name": name,
        "size": settings.size,
        "encoding": settings.encoding,
        "quality": settings.quality if settings.encoding == "jpeg" else None,
        "splits": splits,
        "skipped": [skip for note in notes for skip in note["skipped"]] + left_out,
        "resampled": [
            {"split": part.split, "clip": clip["name"], "fps": clip["fps"]}
            for part, note in zip(parts, notes, strict=True)
            for clip in note["clips"]
            if clip.get("resampled")
        ],
        "identities_in_both": sorted({each for a, b in itertools.combinations(people.values(), 2) for each in a & b}),
    }


def read_back(data: Path, counts: Counts) -> None:
    """Opens the finished set as a stranger would, and reads the first and last record of each split. Raises UserError."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(str(data))
        for split, (lengths, _) in counts.items():
            # Pictures were decoded when their shard was verified; here tfds would only warn about what it decodes with.
            source = builder.as_data_source(split, decoders={"frame": tfds.decode.SkipDecoding()})
            if len(source) != sum(lengths):
                raise ValueError(f"{split} has {len(source)} records instead of {sum(lengths)}")
            for number in (0, len(source) - 1):
                if source[number]["split"].decode() != split:
                    raise ValueError(f"record {number} of {split} is of another split")
    except Exception as error:
        raise UserError(
            f"{data} does not read back what was written ({error}); check the disk and prepare again"
        ) from error


def _place(path: Path, target: Path) -> None:
    """A second name for the part, so that a kill here costs nothing; where the file system has no such names, it is moved."""
    try:
        os.link(path, target)
    except OSError:
        os.replace(path, target)
