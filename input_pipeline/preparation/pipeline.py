"""What are the steps of a preparation, from the list of clips to the finished set
(or one worker's share)?
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from input_pipeline.preparation.boxes import read_boxes
from input_pipeline.preparation.catalog import set_facts
from input_pipeline.preparation.clips import find_clips, with_boxes
from input_pipeline.preparation.merge import Counts, finished_manifests, make_report, merge, read_back
from input_pipeline.preparation.published_tables import clips_of, read_table, summary
from input_pipeline.preparation.shard_jobs import Settings, ShardManifest, ShardSpec, keys_there, plan
from input_pipeline.preparation.staging import check_output, commit, work_folder
from input_pipeline.preparation.workers import Beam, make_shards, make_shards_on_beam, share
from maskanim_jax.errors import UserError, check_at_least
from maskanim_jax.utils.progress import ProgressBar

Plan = tuple[list[ShardSpec], list[dict[str, str]]]
"""The shards to make, and the clips that are skipped before anything is opened."""


@dataclass(frozen=True)
class Job:
    """One preparation, by `workers` processes or an Apache Beam pipeline.

    Raises UserError for invalid settings.
    """

    root: Path
    settings: Settings
    name: str = "video_folder"
    boxes: Path | None = None
    workers: int = 1
    beam: Beam | None = None
    progress: bool = True
    metadata: Path | None = None
    """The authors' published table; `root` is then the folder of its videos."""

    def __post_init__(self) -> None:
        from input_pipeline.preparation.shard_writer import encoder

        s = self.settings
        if not 8 <= s.size <= 4096:
            raise UserError(f"--size={s.size} is out of range; choose from 8 to 4096 pixels")
        check_at_least("--min_frames", s.min_frames)
        check_at_least("--workers", self.workers)
        encoder(s.encoding, s.quality)
        set_facts(self.name)

    def plan(self) -> Plan:
        """Plans the shards of all clips in ROOT (and the table of boxes)
        or in the published table.
        """
        left_out: list[dict[str, str]]
        if self.metadata is not None:
            raw, left_out = clips_of(read_table(self.metadata), self.root)
            return plan(raw), left_out
        raw = find_clips(self.root)
        left_out = []
        if self.boxes is not None:
            raw, left_out = with_boxes(raw, read_boxes(self.boxes))
        if not raw:
            raise UserError(
                f"no clip under {self.root} has a row in {self.boxes}; its first column must be their names"
            )
        return plan(raw), left_out

    def about_published(self, report: dict[str, Any]) -> dict[str, Any]:
        """Extra report entries for a published table, see
        `published_tables.summary`; empty for other sets.
        """
        if self.metadata is None:
            return {}
        return {"published": summary(read_table(self.metadata), self.root, report["splits"])}


def run(job: Job, output: Path, overwrite: bool) -> dict[str, Any]:
    """Makes the shards that are not finished yet and commits the set. Returns the report."""
    check_output(output, overwrite)
    planned = job.plan()
    with work_folder(output, exclusive=True) as folder:
        check_output(output, overwrite)  # entering the work folder restores what a killed --overwrite had moved
        return _put(job, planned, _make(job, planned[0], folder), folder, output)


def run_merge(job: Job, output: Path, overwrite: bool) -> dict[str, Any]:
    """Commits the set if all its shards are finished. Returns the report."""
    check_output(output, overwrite)
    planned = job.plan()
    with work_folder(output, exclusive=True) as folder:
        check_output(output, overwrite)  # entering the work folder restores what a killed --overwrite had moved
        return _put(job, planned, finished_manifests(planned[0], job.settings, folder), folder, output)


def run_share(job: Job, output: Path, overwrite: bool, worker: tuple[int, int]) -> str:
    """Makes the shards of worker i of n, for `run_merge`. Returns a message."""
    check_output(output, overwrite)
    specs, _ = job.plan()
    own = share(specs, worker)
    with work_folder(output, exclusive=False) as folder:
        _make(job, own, folder)
        return (
            f"worker {worker[0]} of {worker[1]}: its {len(own)} of {len(specs)} shards are in {folder}; when all workers "
            "have ended, give the same options with --merge"
        )


def run_check(job: Job) -> dict[str, Any]:
    """Reads, crops and encodes everything without writing.

    Returns the report that `run` would write.
    """
    specs, left_out = job.plan()
    manifests = _make(job, specs, None)
    _refuse_nothing(job, manifests)
    report = make_report(specs, manifests, job.settings, job.name, left_out)
    return report | job.about_published(report)


def write_set(job: Job, folder: Path, data: Path) -> Counts:
    """For tfds: makes the set in `data` without tfds's own description.

    Returns the counts for it.
    """
    planned = job.plan()
    manifests = _make(job, planned[0], folder)
    _refuse_nothing(job, manifests)
    return merge(
        planned[0], manifests, job.settings, folder, data, job.name, planned[1], job.progress, job.about_published
    )[1]


def _put(job: Job, planned: Plan, manifests: Sequence[ShardManifest], folder: Path, output: Path) -> dict[str, Any]:
    from input_pipeline.preparation.shard_writer import write_dataset_info

    _refuse_nothing(job, manifests)
    data = folder / "set"
    try:
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        report, counts = merge(
            planned[0], manifests, job.settings, folder, data, job.name, planned[1], job.progress, job.about_published
        )
        write_dataset_info(data, job.name, job.settings.size, job.settings.encoding, counts)
        read_back(data, counts)
        commit(folder, data, output)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{output} could not be written ({reason}); free space or choose another") from error
    return report


def _make(job: Job, specs: Sequence[ShardSpec], folder: Path | None) -> list[ShardManifest]:
    """Makes the shards and returns their manifests in the same order; prints
    how many existed already.
    """
    before = keys_there(folder)
    manifests: dict[str, ShardManifest] = {}
    clips = sum(len(spec.clips) for spec in specs)
    with ProgressBar(
        total=clips, desc="check" if folder is None else "prepare", unit="clip", disable=not job.progress
    ) as bar:

        def done(spec: ShardSpec, manifest: ShardManifest) -> None:
            manifests[spec.stem] = manifest
            bar.update(len(spec.clips))
            bar.set_postfix(
                frames=sum(n["records"] for n in manifests.values()),
                kept=sum(n["key"] in before for n in manifests.values()),
                left_out=sum(len(n["skipped"]) for n in manifests.values()),
                refresh=False,
            )

        if job.beam is not None and folder is not None:
            make_shards_on_beam(specs, job.settings, folder, job.beam)
            for spec, manifest in zip(specs, finished_manifests(specs, job.settings, folder), strict=True):
                done(spec, manifest)
        else:
            make_shards(specs, job.settings, folder, job.workers, done)
    kept = sum(manifest["key"] in before for manifest in manifests.values())
    if kept and job.progress:
        print(f"{kept} of {len(specs)} shards were already finished and are kept")
    ordered = [manifests[spec.stem] for spec in specs]
    if job.settings.strict:  # existing shards may have been made without --strict
        for skip in (skip for manifest in ordered for skip in manifest["skipped"]):
            raise UserError(skip["reason"])
    return ordered


def _refuse_nothing(job: Job, manifests: Sequence[ShardManifest]) -> None:
    if not any(manifest["records"] for manifest in manifests):
        first = next(skip["reason"] for manifest in manifests for skip in manifest["skipped"])
        raise UserError(f"no clip under {job.root} could be read; the first one: {first}")
