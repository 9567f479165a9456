"""What does one preparation do, from the list of clips to the finished set, or a share of it?"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from input_pipeline.preparation.boxes import read_boxes
from input_pipeline.preparation.catalog import set_facts
from input_pipeline.preparation.clips import find_clips, with_boxes
from input_pipeline.preparation.merge import Counts, finished_notes, make_report, merge, read_back
from input_pipeline.preparation.published_tables import clips_of, read_table, summary
from input_pipeline.preparation.shard_jobs import Note, Part, Settings, keys_there, plan
from input_pipeline.preparation.staging import check_output, put_in_place, work_folder
from input_pipeline.preparation.workers import Beam, make_parts, make_parts_on_beam, share
from maskanim_jax.errors import UserError, check_at_least

Plan = tuple[list[Part], list[dict[str, str]]]
"""The parts to make, and what is left out before anything is opened."""


@dataclass(frozen=True)
class Job:
    """One preparation; `workers` processes here, or, with `beam`, an Apache Beam pipeline. Raises UserError if impossible."""

    root: Path
    settings: Settings
    name: str = "video_folder"
    boxes: Path | None = None
    workers: int = 1
    beam: Beam | None = None
    progress: bool = True
    metadata: Path | None = None
    """A table as the authors published it: `root` is then the folder of its videos."""

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
        """The parts of all clips that ROOT and the table of boxes, or the published table, name."""
        if self.metadata is not None:
            raw, left_out = clips_of(read_table(self.metadata), self.root)
            return plan(raw), left_out
        raw = find_clips(self.root)
        left_out: list[dict[str, str]] = []
        if self.boxes is not None:
            raw, left_out = with_boxes(raw, read_boxes(self.boxes))
        if not raw:
            raise UserError(
                f"no clip under {self.root} has a row in {self.boxes}; its first column must be their names"
            )
        return plan(raw), left_out

    def about_published(self, report: dict[str, Any]) -> dict[str, Any]:
        """What the report of a published table says beside: see `published_tables.summary`; nothing for other sets."""
        if self.metadata is None:
            return {}
        return {"published": summary(read_table(self.metadata), self.root, report["splits"])}


def run(job: Job, output: Path, overwrite: bool) -> dict[str, Any]:
    """Makes what is not finished yet and puts the set in place. Returns the report."""
    check_output(output, overwrite)
    planned = job.plan()
    with work_folder(output, alone=True) as folder:
        check_output(output, overwrite)  # what a killed --overwrite had set aside is back now
        return _put(job, planned, _make(job, planned[0], folder), folder, output)


def run_merge(job: Job, output: Path, overwrite: bool) -> dict[str, Any]:
    """Puts the set in place if all its shards are there. Returns the report."""
    check_output(output, overwrite)
    planned = job.plan()
    with work_folder(output, alone=True) as folder:
        check_output(output, overwrite)  # what a killed --overwrite had set aside is back now
        return _put(job, planned, finished_notes(planned[0], job.settings, folder), folder, output)


def run_share(job: Job, output: Path, overwrite: bool, worker: tuple[int, int]) -> str:
    """Makes the shards that fall to worker i of n, and leaves them to `run_merge`. Returns a sentence about it."""
    check_output(output, overwrite)
    parts, _ = job.plan()
    own = share(parts, worker)
    with work_folder(output, alone=False) as folder:
        _make(job, own, folder)
        return (
            f"worker {worker[0]} of {worker[1]}: its {len(own)} of {len(parts)} shards are in {folder}; when all workers "
            "have ended, give the same options with --merge"
        )


def run_check(job: Job) -> dict[str, Any]:
    """Reads, cuts and encodes everything and writes nothing. Returns the report that `run` would write."""
    parts, left_out = job.plan()
    notes = _make(job, parts, None)
    _refuse_nothing(job, notes)
    report = make_report(parts, notes, job.settings, job.name, left_out)
    return report | job.about_published(report)


def write_set(job: Job, folder: Path, data: Path) -> Counts:
    """For tfds: makes the set in `data`, without tfds's own description. Returns what that description must hold."""
    planned = job.plan()
    notes = _make(job, planned[0], folder)
    _refuse_nothing(job, notes)
    return merge(
        planned[0], notes, job.settings, folder, data, job.name, planned[1], job.progress, job.about_published
    )[1]


def _put(job: Job, planned: Plan, notes: Sequence[Note], folder: Path, output: Path) -> dict[str, Any]:
    from input_pipeline.preparation.shard_writer import write_dataset_info

    _refuse_nothing(job, notes)
    data = folder / "set"
    try:
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        report, counts = merge(
            planned[0], notes, job.settings, folder, data, job.name, planned[1], job.progress, job.about_published
        )
        write_dataset_info(data, job.name, job.settings.size, job.settings.encoding, counts)
        read_back(data, counts)
        put_in_place(folder, data, output)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{output} could not be written ({reason}); free space or choose another") from error
    return report


def _make(job: Job, parts: Sequence[Part], folder: Path | None) -> list[Note]:
    """Makes the parts and returns their notes in the same order; says how many were there already."""
    before = keys_there(folder)
    notes: dict[str, Note] = {}
    clips = sum(len(part.clips) for part in parts)
    with tqdm(total=clips, desc="check" if folder is None else "prepare", unit="clip", disable=not job.progress) as bar:

        def done(part: Part, note: Note) -> None:
            notes[part.stem] = note
            bar.update(len(part.clips))
            bar.set_postfix(
                frames=sum(n["records"] for n in notes.values()),
                kept=sum(n["key"] in before for n in notes.values()),
                left_out=sum(len(n["skipped"]) for n in notes.values()),
                refresh=False,
            )

        if job.beam is not None and folder is not None:
            make_parts_on_beam(parts, job.settings, folder, job.beam)
            for part, note in zip(parts, finished_notes(parts, job.settings, folder), strict=True):
                done(part, note)
        else:
            make_parts(parts, job.settings, folder, job.workers, done)
    kept = sum(note["key"] in before for note in notes.values())
    if kept and job.progress:
        print(f"{kept} of {len(parts)} shards were finished before and are kept")
    ordered = [notes[part.stem] for part in parts]
    if job.settings.strict:  # kept ones may have been made without --strict
        for skip in (skip for note in ordered for skip in note["skipped"]):
            raise UserError(skip["reason"])
    return ordered


def _refuse_nothing(job: Job, notes: Sequence[Note]) -> None:
    if not any(note["records"] for note in notes):
        first = next(skip["reason"] for note in notes for skip in note["skipped"])
        raise UserError(f"no clip under {job.root} could be read; the first one: {first}")
