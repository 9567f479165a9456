"""What happens when a record cannot be read?

A damaged record ends training with a sentence that names the shard and the clip, unless `config.data.max_bad_fraction` allows
a share of them: then another pair takes its place and it is counted. A shard that is gone is never passed over.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

from maskanim_jax.errors import UserError


class BadRecord(UserError):
    """One frame that cannot be read; `clip` and `frame` are its numbers in the split."""

    def __init__(self, sentence: str, clip: int, frame: int) -> None:
        super().__init__(sentence)
        self.clip, self.frame = clip, frame


class ShardLost(UserError):
    """A shard that was there at the start has disappeared or has another size now."""


class Skipped(NamedTuple):
    """A frame that was drawn and could not be read. (An exception would hold on to the batch it was met in.)"""

    clip: int
    frame: int
    sentence: str


class Faults:
    """Counts the damaged records that this process was told to pass over; raises when they are too many.

    Batches are noted in the order of the steps, so that the step at which it raises doesn't depend on threads.
    `share` of the split's `frames` may be damaged, each counted once however often it is drawn.
    """

    def __init__(self, share: float, frames: int) -> None:
        self._share, self._frames = share, frames
        self._seen: set[tuple[int, int]] = set()
        self._news: list[str] = []
        self._lock = threading.Lock()  # batches are noted by the thread that reads ahead
        self.redrawn = 0
        """Pairs that were drawn again because one of their frames could not be read."""

    @property
    def records(self) -> int:
        """Different frames found damaged so far."""
        return len(self._seen)

    def note(self, skipped: Sequence[Skipped]) -> None:
        """Counts what one batch passed over; raises UserError once more than the share is damaged."""
        for clip, frame, sentence in skipped:
            self.redrawn += 1
            if (clip, frame) in self._seen:
                continue
            self._seen.add((clip, frame))
            if self.records > self._share * self._frames:
                raise UserError(
                    f"{self.records} of {self._frames} frames are damaged so far, more than config.data.max_bad_fraction={self._share} "
                    f"allows; the last one: {sentence}"
                )
            with self._lock:
                self._news.append(f"skipped a damaged record, {self.records} of {self._frames} so far: {sentence}")

    def news(self) -> list[str]:
        """Sentences for the log, one for each damaged record found since the last call."""
        with self._lock:
            news, self._news = self._news, []
        return news

    def figures(self) -> dict[str, float]:
        """Scalars for the log: damaged records and pairs drawn again so far; none where nothing may be skipped."""
        if not self._share:
            return {}
        return {"bad_records": float(self.records), "redrawn_pairs": float(self.redrawn)}
