"""What happens when a record cannot be read?

By default, a damaged record ends training with an error that names the shard and the clip. With
`config.data.max_bad_fraction` above 0 the record is counted and another pair is drawn instead.
A missing shard is always an error.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

from maskanim_jax.errors import UserError


class BadRecord(UserError):
    """One frame cannot be read; `clip` and `frame` are its numbers in the split."""

    def __init__(self, message: str, clip: int, frame: int) -> None:
        super().__init__(message)
        self.clip, self.frame = clip, frame


class MissingShardError(UserError):
    """A shard has disappeared or changed its size since the run started."""


class Skipped(NamedTuple):
    """A frame that was drawn but could not be read.

    (Keeping the exception would keep its batch alive.)
    """

    clip: int
    frame: int
    message: str


class BadRecordCounter:
    """Counts the damaged records that this process skips; raises when there are too many.

    Batches are counted in step order, so the step at which it raises does not depend on threads.
    `share` of the split's `frames` may be damaged; each is counted once, however often it is drawn.
    """

    def __init__(self, share: float, frames: int) -> None:
        self._share, self._frames = share, frames
        self._seen: set[tuple[int, int]] = set()
        self._messages: list[str] = []
        self._lock = threading.Lock()  # the prefetching thread calls `note`
        self.redrawn = 0
        """Pairs that were redrawn because one of their frames could not be read."""

    @property
    def records(self) -> int:
        """Distinct damaged frames found so far."""
        return len(self._seen)

    def note(self, skipped: Sequence[Skipped]) -> None:
        """Counts the frames that one batch skipped; raises UserError once more
        than the share is damaged.
        """
        for clip, frame, message in skipped:
            self.redrawn += 1
            if (clip, frame) in self._seen:
                continue
            self._seen.add((clip, frame))
            if self.records > self._share * self._frames:
                raise UserError(
                    f"{self.records} of {self._frames} frames are damaged, more than config.data.max_bad_fraction={self._share} "
                    f"allows; the latest: {message}"
                )
            with self._lock:
                self._messages.append(f"skipped a damaged record, {self.records} of {self._frames} so far: {message}")

    def drain_messages(self) -> list[str]:
        """Messages for the log, one for each damaged record found since the last call."""
        with self._lock:
            messages, self._messages = self._messages, []
        return messages

    def metrics(self) -> dict[str, float]:
        """Scalars for the log: damaged records and redrawn pairs so far; empty
        when nothing may be skipped.
        """
        if not self._share:
            return {}
        return {"bad_records": float(self.records), "redrawn_pairs": float(self.redrawn)}
