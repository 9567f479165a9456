"""How are the videos of a published table downloaded?

With yt-dlp; without it, a list of URLs is written.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from input_pipeline.preparation.published_tables import Table, find_videos
from maskanim_jax.errors import UserError
from maskanim_jax.utils.atomic_files import atomic_write
from maskanim_jax.utils.progress import ProgressBar

TOOL = "yt-dlp"
ADDRESSES = "addresses.txt"
GONE = "gone.json"
"""In the videos' folder: the id of each video that is permanently gone, with the
reason; not requested again.
"""
_YOUTUBE = re.compile(r"[\w-]{11}")
_FOR_GOOD = re.compile(r"unavailable|private|removed|terminated|not exist|deleted|copyright|closed", re.I)
_FAILURES = 5  # in a row for other reasons: then the network is down, or we are rate-limited
# Polite: pause before each video and between requests; resume partial files.
_OPTIONS = (
    *("--no-playlist", "--continue", "--no-overwrites", "--no-progress", "--quiet"),
    *("--sleep-requests", "1", "--sleep-interval", "2", "--max-sleep-interval", "6", "--retries", "3"),
    *("--format", "best[ext=mp4]/bestvideo[ext=mp4]/best"),
)


def download(table: Table, folder: Path) -> list[str]:
    """Downloads the videos that are missing in `folder`; returns messages for the user.

    It can be stopped and restarted at any time. Permanently missing videos are listed in
    FOLDER/gone.json. Without yt-dlp, the URLs are written to FOLDER/addresses.txt instead. Raises
    UserError when the folder can't be written or downloads keep failing.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there, gone = find_videos(folder), _read_gone(folder)
        wanted = [video for video in table.videos() if video not in there]
        ids = [video for video in wanted if _YOUTUBE.fullmatch(video) and video not in gone]
        if not ids:
            return _nothing(wanted, gone)
        if shutil.which(TOOL) is None:
            with atomic_write(folder / ADDRESSES) as temporary:
                temporary.write_text("".join(f"{address(video)}\n" for video in ids))
            return [
                f"{TOOL} is not installed: the addresses of {len(ids)} videos are in {folder / ADDRESSES}; `pip install {TOOL}` and start again, "
                f"or save them as {folder}/ID.mp4"
            ]
        return _fetch(ids, folder, gone)
    except OSError as error:
        raise UserError(f"{folder} can't be written ({error.strerror}): free space or give other --videos") from error


def address(video: str) -> str:
    """The URL of a video on YouTube."""
    return f"https://www.youtube.com/watch?v={video}"


def _fetch(ids: Sequence[str], folder: Path, gone: dict[str, str]) -> list[str]:
    failures, fetched = 0, 0
    for video in ProgressBar(ids, desc="download", unit="video"):
        done = subprocess.run(
            [TOOL, *_OPTIONS, "--output", str(folder / f"{video}.mp4"), "--", address(video)],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode == 0 and video in find_videos(folder):
            failures, fetched = 0, fetched + 1
            continue
        reason = next(
            (line for line in reversed(done.stderr.splitlines()) if line.strip()), f"exit status {done.returncode}"
        )
        if _FOR_GOOD.search(reason):
            failures, gone[video] = 0, reason[:300]
            with atomic_write(folder / GONE) as temporary:
                temporary.write_text(json.dumps(gone, indent=2))
            continue
        failures += 1
        if failures == _FAILURES:
            raise UserError(
                f"{TOOL} failed for {failures} videos in a row (the last: {reason[:200]}): wait, then repeat the command to resume"
            )
    return [
        f"{fetched} of {len(ids)} videos were downloaded to {folder}; {len(gone)} are permanently gone ({folder / GONE})"
    ]


def _nothing(wanted: Sequence[str], gone: dict[str, str]) -> list[str]:
    other = [video for video in wanted if video not in gone]
    if other:
        return [
            f"{len(other)} videos, such as {other[0]}, are not on YouTube: get them from the owners of the data set"
        ]
    return []


def _read_gone(folder: Path) -> dict[str, str]:
    try:
        found = json.loads((folder / GONE).read_text())
    except (OSError, ValueError):
        return {}
    return {str(video): str(reason) for video, reason in found.items()} if isinstance(found, dict) else {}
