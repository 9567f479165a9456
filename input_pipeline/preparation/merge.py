"""How are finished shards merged into one data set?

Each is checked against its manifest, then named and indexed.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from input_pipeline.preparation.shard_jobs import Settings, ShardManifest, ShardSpec, finished, spec_key, write_json
from input_pipeline.shards import INDEX, INDEX_VERSION
from maskanim_jax.errors import UserError
from maskanim_jax.utils.atomic_files import sha256_of
from maskanim_jax.utils.progress import ProgressBar

REPORT = "report.json"
Counts = dict[str, tuple[list[int], int]]
"""For each split: the number of records in each shard, and the bytes of all records."""


def finished_manifests(specs: Sequence[ShardSpec], settings: Settings, folder: Path) -> list[ShardManifest]:
    """Reads the manifests of all shards.

    Raises UserError when one is missing or was made from other clips, settings or library versions.
    """
    manifests, absent = [], []
    for spec in specs:
        manifest = finished(spec, spec_key(spec, settings), folder)
        if manifest is None:
            absent.append(spec.stem)
        else:
            manifests.append(manifest)
    if absent:
        raise UserError(
            f"{len(absent)} of {len(specs)} shards in {folder} are missing or were made from other clips or settings "
            f"(the first: {absent[0]}); run their --worker again with the options of this command"
        )
    return manifests


def merge(
    specs: Sequence[ShardSpec],
    manifests: Sequence[ShardManifest],
    settings: Settings,
    folder: Path,
    data: Path,
    name: str,
    left_out: list[dict[str, str]],
    progress: bool,
    beside: Callable[[dict[str, Any]], dict[str, Any]] = lambda report: {},
) -> tuple[dict[str, Any], Counts]:
    """Moves the shards of `folder` into `data` under their final names; writes
    clips.json and report.json.

    `beside` gets the report and returns entries to add to it. Returns the report and the
    splits' counts for tfds. Empty shards are dropped. Raises UserError when a shard does not
    match its manifest's hash.
    """
    from input_pipeline.preparation.shard_writer import shard_name

    splits: dict[str, Any] = {}
    counts: Counts = {}
    shards: dict[str, int] = {}
    bar = ProgressBar(total=len(specs), desc="verify", unit="shard", disable=not progress)
    with bar:
        for split in dict.fromkeys(spec.split for spec in specs):
            filled = [(p, n) for p, n in zip(specs, manifests, strict=True) if p.split == split and n["records"]]
            if not filled:
                continue
            first, entries, digest = 0, [], hashlib.sha256()
            for number, (spec, manifest) in enumerate(filled):
                path = folder / f"{spec.stem}.array_record"
                if sha256_of(path) != manifest["sha256"]:
                    raise UserError(f"{path} has changed since it was written; remove it and start again")
                shards[shard_name(name, split, number, len(filled))] = manifest["file_bytes"]
                _place(path, data / shard_name(name, split, number, len(filled)))
                bar.update()
                for clip in manifest["clips"]:
                    entries.append({"name": clip["name"], "identity": clip["identity"], "first": first} | clip)
                    first += clip["count"]
                    digest.update(bytes.fromhex(clip["sha256"]))
            splits[split] = {"frames_sha256": digest.hexdigest(), "clips": entries}
            counts[split] = (
                [manifest["records"] for _, manifest in filled],
                sum(manifest["bytes"] for _, manifest in filled),
            )
    index = {
        "version": INDEX_VERSION,
        "name": name,
        "size": settings.size,
        "encoding": settings.encoding,
        "quality": settings.quality if settings.encoding == "jpeg" else None,
        "splits": splits,
        "shards": shards,
    }
    report = make_report(specs, manifests, settings, name, left_out)
    report |= beside(report)
    write_json(data / INDEX, index)
    write_json(data / REPORT, report)
    return report, counts


def make_report(
    specs: Sequence[ShardSpec],
    manifests: Sequence[ShardManifest],
    settings: Settings,
    name: str,
    left_out: list[dict[str, str]],
) -> dict[str, Any]:
    """Builds the report, without splits that have no readable clip:

    {"name", "size", "encoding", "quality", "splits": {split: {"clips", "identities", "frames",
    "bytes"}}, "skipped": [{"split", "clip", "reason"}], "resampled": [{"split", "clip", "fps"}],
    "identities_in_both": [..]}
    """
    splits: dict[str, Any] = {}
    people: dict[str, set[str]] = {}
    for spec, manifest in zip(specs, manifests, strict=True):
        if not manifest["clips"]:
            continue
        counted = splits.setdefault(spec.split, {"clips": 0, "identities": 0, "frames": 0, "bytes": 0})
        counted["clips"] += len(manifest["clips"])
        counted["frames"] += manifest["records"]
        counted["bytes"] += manifest["bytes"]
        people.setdefault(spec.split, set()).update(clip["identity"] for clip in manifest["clips"])
        counted["identities"] = len(people[spec.split])
    return {
        "name": name,
        "size": settings.size,
        "encoding": settings.encoding,
        "quality": settings.quality if settings.encoding == "jpeg" else None,
        "splits": splits,
        "skipped": [skip for manifest in manifests for skip in manifest["skipped"]] + left_out,
        "resampled": [
            {"split": spec.split, "clip": clip["name"], "fps": clip["fps"]}
            for spec, manifest in zip(specs, manifests, strict=True)
            for clip in manifest["clips"]
            if clip.get("resampled")
        ],
        "identities_in_both": sorted({each for a, b in itertools.combinations(people.values(), 2) for each in a & b}),
    }


def read_back(data: Path, counts: Counts) -> None:
    """Opens the finished set with tfds and reads the first and last record of each split.

    Raises UserError.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(str(data))
        for split, (lengths, _) in counts.items():
            # Images were decoded when their shard was verified; decoding here would only print tfds warnings.
            source = builder.as_data_source(split, decoders={"frame": tfds.decode.SkipDecoding()})
            if len(source) != sum(lengths):
                raise ValueError(f"{split} has {len(source)} records instead of {sum(lengths)}")
            for number in (0, len(source) - 1):
                if source[number]["split"].decode() != split:
                    raise ValueError(f"record {number} of {split} belongs to another split")
    except Exception as error:
        raise UserError(
            f"{data} does not read back what was written ({error}); check the disk and prepare again"
        ) from error


def _place(path: Path, target: Path) -> None:
    """Hard-links the shard, so that a kill here loses nothing; moves it if the file
    system has no hard links.
    """
    try:
        os.link(path, target)
    except OSError:
        os.replace(path, target)
