"""Which two frames make a training pair, and in which order do pairs come?"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import grain
import numpy as np

from input_pipeline.bad_records import BadRecord, BadRecordCounter, Skipped
from input_pipeline.shards import Split
from maskanim_jax.errors import UserError, check_at_least

Batch = dict[str, np.ndarray]
"""source, driving: (b, S, S, 3) uint8 RGB; clip: (b,) int32 clip numbers;
frames: (b, 2) int32, in order.
"""

SAMPLINGS = ("identity", "clip")
MAX_REDRAWS = 32
"""How often a pair with a damaged record is redrawn before the reader gives up."""


def draw_pair(group: Sequence[int], counts: Sequence[int], rng: np.random.Generator) -> tuple[int, int, int]:
    """Draws a clip of the group and two of its frames, with replacement, sorted by time.

    `counts` holds the number of frames of each clip.
    """
    clip = group[int(rng.integers(len(group)))]
    earlier, later = sorted(int(i) for i in rng.integers(counts[clip], size=2))
    return clip, earlier, later


class _Draw(grain.transforms.RandomMap):
    """Draws a pair of the element's group."""

    def __init__(self, groups: list[list[int]], counts: list[int]) -> None:
        self._groups, self._counts = groups, counts

    def random_map(self, element: int, rng: np.random.Generator) -> tuple[int, int, int]:
        return draw_pair(self._groups[element % len(self._groups)], self._counts, rng)


class _Read(grain.transforms.Map):
    """Reads the frames of a batch into its arrays: two records per pair,
    however long the clip is.
    """

    def __init__(self, split: Split, groups: list[list[int]], counts: list[int], seed: int, skip: bool) -> None:
        self._split, self._counts, self._seed, self._skip = split, counts, seed, skip
        self._group_of = {clip: group for group in groups for clip in group}

    def map(self, element: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple[Batch, list[Skipped]]:
        rows, size = len(element[0]), self._split.size
        batch = {name: np.empty((rows, size, size, 3), np.uint8) for name in ("source", "driving")}
        skipped: list[Skipped] = []
        pairs = np.empty((rows, 3), np.int32)
        for row, (clip, earlier, later) in enumerate(zip(*element, strict=True)):
            drawn = int(clip), int(earlier), int(later)
            pairs[row] = self._read(drawn, batch["source"][row], batch["driving"][row], skipped)
        return batch | {"clip": pairs[:, 0], "frames": pairs[:, 1:]}, skipped

    def _read(
        self, drawn: tuple[int, int, int], source: np.ndarray, driving: np.ndarray, skipped: list[Skipped]
    ) -> tuple[int, int, int]:
        """Returns the pair that was read: the one drawn, or its replacement."""
        pair = drawn
        for attempt in range(MAX_REDRAWS):
            clip, earlier, later = pair
            try:
                self._split.frame(clip, earlier, out=source)
                if later == earlier:
                    driving[:] = source
                else:
                    self._split.frame(clip, later, out=driving)
                return pair
            except BadRecord as error:
                if not self._skip or attempt == MAX_REDRAWS - 1:
                    raise
                skipped.append(Skipped(error.clip, error.frame, str(error)))
            # Seeded by the original pair, so that every process and every restart draws the same replacement.
            rng = np.random.default_rng([self._seed, *drawn, attempt])
            pair = draw_pair(self._group_of[drawn[0]], self._counts, rng)
        raise AssertionError("not reached")


class PairStream:
    """The endless stream of training batches.

    Batch `step` depends only on the data, the seed, the sampling and `step`: not on threads, and
    not on the step at which the stream was entered.

    The earlier frame is the source, the later one the driving frame; the device applies flips
    and colour jitter. sampling "identity": an epoch is identities x repeats pairs, each from a
    random clip of its identity. sampling "clip": an epoch is one pass over the clips;
    `repeats` is not used. Pairs that do not fill a batch at the end of an epoch are dropped;
    each epoch drops others.

    `batch_size` is the total over all processes. Each process reads rows [process_index * b,
    (process_index + 1) * b) of the batch, b = batch_size / process_count. A run may therefore
    resume with other numbers of processes and threads: its batches stay the same.

    `max_bad_fraction` is the share of the split's frames that may be damaged. A pair with a damaged
    frame is redrawn from the same identity (or clip), and `bad_records` counts it. With 0 the first
    damaged record ends the stream. Raises UserError for invalid settings.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        seed: int,
        sampling: str = "identity",
        repeats: int = 1,
        threads: int = 2,
        process_index: int = 0,
        process_count: int = 1,
        max_bad_fraction: float = 0.0,
    ) -> None:
        _check(batch_size, seed, sampling, repeats, threads, process_index, process_count, max_bad_fraction)
        identities: dict[str, list[int]] = {}
        for number, clip in enumerate(split.clips):
            identities.setdefault(clip.identity, []).append(number)
        by_identity = sampling == "identity"
        groups = list(identities.values()) if by_identity else [[n] for n in range(len(split.clips))]
        repeats = repeats if by_identity else 1
        self.pairs_per_epoch = len(groups) * repeats
        self.steps_per_epoch = self.pairs_per_epoch // batch_size
        """Full batches in an epoch."""
        self.fingerprint = split.fingerprint
        """Identifies the data (see Split), not their order."""
        if self.steps_per_epoch == 0:
            unit = "identities" if by_identity else "clips"
            hint = "data.num_repeats" if by_identity else "the number of clips"
            raise UserError(
                f"{split.shards} gives {self.pairs_per_epoch} pairs an epoch "
                f"({len(groups)} {unit} x {repeats}), fewer than a batch of {batch_size}; "
                f"lower batch_size or raise {hint}"
            )
        counts = [clip.count for clip in split.clips]
        self.bad_records = BadRecordCounter(max_bad_fraction, sum(counts))
        """Damaged records that this process has skipped so far."""
        self._about = (
            f"{split.name}: {len(split.clips)} clips of {len(identities)} identities, "
            f"{sum(counts)} frames of {split.size} x {split.size}; an epoch is "
            + (f"{len(groups)} identities x {repeats}" if by_identity else "one pass over the clips")
            + f" = {self.pairs_per_epoch} pairs = {self.steps_per_epoch} steps of {batch_size}"
        )
        self._threads, self._batch_size = threads, batch_size
        order = grain.MapDataset.source(range(self.pairs_per_epoch)).seed(seed).shuffle()
        order = order.slice(slice(0, self.steps_per_epoch * batch_size))
        drawn = order.random_map(_Draw(groups, counts)).batch(batch_size // process_count, drop_remainder=True)
        local = drawn.map(_Read(split, groups, counts, seed, max_bad_fraction > 0))
        # A global batch is process_count local batches; repeat() reseeds shuffle and draws for each epoch.
        self._steps = local.slice(slice(process_index, None, process_count)).repeat()

    def describe(self, epochs: int | None = None) -> str:
        """One line for the log: clips, identities, frames, and the pairs and steps of an
        epoch and of all `epochs`.
        """
        if epochs is None:
            return self._about
        pairs, steps = epochs * self.steps_per_epoch * self._batch_size, epochs * self.steps_per_epoch
        return f"{self._about}; {epochs} epochs are {steps} steps, {pairs} pairs"

    def batches(self, start_step: int = 0) -> Generator[Batch]:
        """Yields the batches of steps start_step, start_step + 1, ... without end;
        `threads` threads read ahead.

        Close the generator to stop the threads. Raises UserError in place of a batch whose
        record is damaged (beyond `max_bad_fraction`) or whose shard is missing; earlier
        batches are yielded first.
        """
        steps = self._steps.slice(slice(start_step, None)) if start_step else self._steps
        ahead = 2 * self._threads  # counted in batches
        iterator = iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=ahead)))
        try:
            while True:
                batch, skipped = next(iterator)
                self.bad_records.note(skipped)
                yield batch
        finally:
            iterator.close()


def _check(
    batch_size: int,
    seed: int,
    sampling: str,
    repeats: int,
    threads: int,
    process_index: int,
    process_count: int,
    max_bad_fraction: float,
) -> None:
    if sampling not in SAMPLINGS:
        raise UserError(f"data.sampling={sampling} is unknown; choose one of {', '.join(SAMPLINGS)}")
    if batch_size < 1 or batch_size % process_count:
        raise UserError(f"batch_size={batch_size} must be a multiple of the number of processes, {process_count}")
    if not 0 <= process_index < process_count:
        raise UserError(f"process {process_index} of {process_count} does not exist; count from 0")
    check_at_least("config.data.num_repeats", repeats)
    check_at_least("config.data.num_threads", threads, 0)
    if not 0 <= seed < 2**32:
        raise UserError(f"seed={seed} is out of range; choose from 0 to 4294967295")
    if not 0 <= max_bad_fraction < 1:
        raise UserError(f"data.max_bad_fraction={max_bad_fraction} must be at least 0 and below 1")
