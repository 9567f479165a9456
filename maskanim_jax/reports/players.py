"""Which animations and before/after metrics does the page of a run show?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from maskanim_jax.reports.page_parts import Video, embedded, link, read_json, videos
from maskanim_jax.workdir.results import BEFORE, FIRST_MINUTE, inputs_of

_STRIP = "-strip"
_MASK = {"mask_mean": "mean", "mask_space": "std_space", "mask_time": "std_time", "mask_iou": "iou"}
_NOT_COMPARED = ("frames", "checkpoint_step", "l1_copy_source")


class Player(NamedTuple):
    """One animation.

    `source` is the address of a picture, `driving` and `strip` are addresses of videos;
    each is empty if unknown.
    """

    caption: str
    source: str
    driving: str
    result: Video
    strip: str


class Change(NamedTuple):
    """One metric before and after; `verdict` is "better", "worse" or empty if undecided."""

    name: str
    before: float
    after: float
    verdict: str


def animations(folder: Path, page_folder: Path, notes: list[str]) -> list[Player]:
    """The results in `folder` by name: the mp4, or the gif if there is no mp4;
    NAME-strip.mp4 belongs to NAME.
    """
    found = {Path(video.name).stem: video for video in videos(folder, page_folder, notes)}
    players = []
    for stem, video in found.items():
        if stem.endswith(_STRIP) and stem.removesuffix(_STRIP) in found:
            continue
        strip = found.get(stem + _STRIP)
        source, driving = inputs_of(folder, stem)
        players.append(
            Player(
                video.caption,
                embedded(source, page_folder) if source.is_file() else "",
                link(driving, page_folder) if driving.is_file() else "",
                video,
                strip.link if strip else "",
            )
        )
    return players


def first_minute(workdir: Path, page_folder: Path, notes: list[str]) -> Player | None:
    """The animation in the workdir's folder `first_minute`; None if there is none.

    `out.mp4` is the result; `source.png`, `driving.mp4` and `strip.mp4` are shown if they exist.
    `captions.json` may hold a caption for "out.mp4".
    """
    folder = workdir / FIRST_MINUTE
    result, source, driving, strip = (folder / name for name in ("out.mp4", "source.png", "driving.mp4", "strip.mp4"))
    if not result.is_file():
        return None
    captions = read_json(folder / "captions.json", dict, notes)
    return Player(
        str(captions.get(result.name, "A picture animated by the checkpoint that comes with the package")),
        embedded(source, page_folder) if source.is_file() else "",
        link(driving, page_folder) if driving.is_file() else "",
        Video("", link(result, page_folder), False, result.name),
        link(strip, page_folder) if strip.is_file() else "",
    )


def before_and_after(before: Mapping[str, Any], after: Mapping[str, Any], notes: list[str]) -> list[Change]:
    """The metrics that both have, in the order of `after`; those under "mask" are called mask_mean,
    mask_space, mask_time, mask_iou.

    Args:
        before: figures from before.json; its "label" is not a metric.
        after: the content of reconstruction.json.
        notes: a note is appended if the two were measured on different data.
    """
    from maskanim_jax.reports.differences import better

    first, second = _numbers(before), _numbers(after)
    fingerprints = before.get("data_fingerprint"), after.get("data_fingerprint")
    if all(fingerprints) and fingerprints[0] != fingerprints[1] and first:
        notes.append(f"{BEFORE} was measured on different data than reconstruction.json, so they can't be compared.")
    changes = []
    for name, value in second.items():
        if name in first and name not in _NOT_COMPARED:
            gain = better(name) * (value - first[name])
            verdict = "better" if gain > 0 else "worse" if gain < 0 else ""
            changes.append(Change(name, first[name], value, verdict))
    return changes


def _numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    mask = figures.get("mask")
    named = {name: mask.get(key) for name, key in _MASK.items()} if isinstance(mask, dict) else {}
    return {name: value for name, value in {**figures, **named}.items() if type(value) in (int, float)}
