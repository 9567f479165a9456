"""Which two frames are trained on, and in which order?"""

from __future__ import annotations

from collections.abc import Generator

import grain
import numpy as np

from input_pipeline.shards import Split
from maskanim_jax.errors import UserError

Batch = dict[str, np.ndarray]
"""source, driving: (b, S, S, 3) uint8 RGB; clip: (b,) int32 clip numbers; frames: (b, 2) int32, in order."""

SAMPLINGS = ("identity", "clip")


class _Draw(grain.transforms.RandomMap):
    """Draws a clip of the element's group and two of its frames, with replacement, sorted by time."""

    def __init__(self, groups: list[list[int]], counts: list[int]) -> None:
        self._groups, self._counts = groups, counts

    def random_map(self, element: int, rng: np.random.Generator) -> tuple[int, int, int]:
        group = self._groups[element % len(self._groups)]
        clip = group[int(rng.integers(len(group)))]
        earlier, later = sorted(int(i) for i in rng.integers(self._counts[clip], size=2))
        return clip, earlier, later


class _Read(grain.transforms.Map):
    """Reads the two frames: two records, however long the clip."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def map(self, element: tuple[int, int, int]) -> Batch:
        clip, earlier, later = element
        source = self._split.frame(clip, earlier)
        return {
            "source": source,
            "driving": source.copy() if later == earlier else self._split.frame(clip, later),
            "clip": np.array(clip, np.int32),
            "frames": np.array([earlier, later], np.int32),
        }


class PairStream:
    """The endless stream of training batches. Batch `step` depends on the data, the seed, the sampling and
    `step` alone: not on threads, nor on where the stream was entered.

    The earlier frame is the source, the later one the driving frame; flips and colour are left to the device.
    sampling "identity": an epoch is identities x repeats pairs, each of a random clip of its identity.
    sampling "clip": an epoch is one pass over the clips; `repeats` is not used.
    What does not fill a batch at the end of an epoch is left out; another part is left out in the next.

    `batch_size` is that of all processes together: each one reads rows
    [process_index * b, (process_index + 1) * b) of the batch, b = batch_size / process_count.
    Raises UserError for settings that cannot work.
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
    ) -> None:
        _check(batch_size, seed, sampling, repeats, threads, process_count)
        identities: dict[str, list[int]] = {}
        for number, clip in enumerate(split.clips):
            identities.setdefault(clip.identity, []).append(number)
        by_identity = sampling == "identity"
        groups = list(identities.values()) if by_identity else [[n] for n in range(len(split.clips))]
        repeats = repeats if by_identity else 1
        self.pairs_per_epoch = len(groups) * repeats
        self.steps_per_epoch = self.pairs_per_epoch // batch_size
        """Whole batches in an epoch."""
        self.fingerprint = split.fingerprint
        """Of the data (see Split), not of the order."""
        if self.steps_per_epoch == 0:
            unit = "identities" if by_identity else "clips"
            mend = "data.repeats" if by_identity else "the number of clips"
            raise UserError(
                f"{split.shards} gives {self.pairs_per_epoch} pairs an epoch "
                f"({len(groups)} {unit} x {repeats}), fewer than a batch of {batch_size}; "
                f"lower batch_size or raise {mend}"
            )
        self._about = (
            f"{split.name}: {len(split.clips)} clips of {len(identities)} identities, "
            f"{sum(clip.count for clip in split.clips)} frames of {split.size} x {split.size}; an epoch is "
            + (f"{len(groups)} identities x {repeats}" if by_identity else "one pass over the clips")
            + f" = {self.pairs_per_epoch} pairs = {self.steps_per_epoch} steps of {batch_size}"
        )
        self._threads = threads
        order = grain.MapDataset.source(range(self.pairs_per_epoch)).seed(seed).shuffle()
        order = order.slice(slice(0, self.steps_per_epoch * batch_size))
        drawn = order.random_map(_Draw(groups, [clip.count for clip in split.clips]))
        local = drawn.map(_Read(split)).batch(batch_size // process_count, drop_remainder=True)
        # batch_size rows are process_count local batches; repeat() reseeds shuffle and draws for each epoch.
        self._steps = local.slice(slice(process_index, None, process_count)).repeat()

    def describe(self) -> str:
        """Clips, identities, frames, pairs and steps of an epoch, in one line for the log."""
        return self._about

    def batches(self, start_step: int = 0) -> Generator[Batch]:
        """Batches of steps start_step, start_step + 1, ... without end, read ahead by `threads` threads.

        Close the generator to end the threads. Raises UserError when a shard turns out to be damaged.
        """
        steps = self._steps.slice(slice(start_step, None)) if start_step else self._steps
        ahead = 2 * self._threads  # counted in batches
        iterator = iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=ahead)))
        try:
            while True:
                yield next(iterator)
        finally:
            iterator.close()


def _check(batch_size: int, seed: int, sampling: str, repeats: int, threads: int, process_count: int) -> None:
    if sampling not in SAMPLINGS:
        raise UserError(f"data.sampling={sampling} is unknown; choose one of {', '.join(SAMPLINGS)}")
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"batch_size={batch_size} cannot be shared by {process_count} processes; choose a multiple of it"
        )
    if repeats < 1:
        raise UserError(f"data.repeats={repeats} leaves an epoch empty; choose 1 or more")
    if threads < 0:
        raise UserError(f"data.threads={threads} is below zero; choose 0 or more")
    if not 0 <= seed < 2**32:
        raise UserError(f"seed={seed} is out of range; choose from 0 to 4294967295")
