"""When does a run end before its last step?"""

from __future__ import annotations

import math
import time

from maskanim_jax.checkpoints.manager import CheckpointManager
from maskanim_jax.distributed.sharding import broadcast_from_process_0


class TimeBudget:
    """How long the run has trained, over all its starts."""

    def __init__(self, limit: float, checkpoints: CheckpointManager) -> None:
        step = checkpoints.latest_step()
        self._before = 0.0 if step is None else float(checkpoints.info(step)["minutes"])
        self._limit, self._since = limit or float("inf"), time.monotonic()

    def minutes(self) -> float:
        """Minutes so far, including those before the newest checkpoint."""
        return self._before + (time.monotonic() - self._since) / 60

    def exceeded(self) -> bool:
        """Whether `config.optim.max_minutes` is exceeded.

        Process 0's clock decides, since all must stop at the same step.
        """
        return self._limit < float("inf") and broadcast_from_process_0(self.minutes() >= self._limit)


class Patience:
    """For how many steps the held-out L1 has not fallen.

    The lowest L1 is read from the checkpoints, since the best one is always kept: a resumed run
    ends at the same step as an uninterrupted one. Without a measured L1 the run goes on.
    """

    def __init__(self, steps: int, checkpoints: CheckpointManager) -> None:
        self._steps = steps
        self._lowest, self._best_step = checkpoints.lowest_l1() if steps else (math.inf, 0)

    def note(self, step: int, l1: float) -> None:
        """Takes the held-out L1 of a step; of equal ones the later counts."""
        if l1 <= self._lowest:
            self._lowest, self._best_step = l1, step

    def exhausted(self, step: int) -> bool:
        """Whether the lowest L1 is at least `config.optim.patience` steps old.

        Process 0 decides, since all must stop at the same step.
        """
        return self._steps > 0 and broadcast_from_process_0(step - self._best_step >= self._steps)

    def message(self) -> str:
        """A log message that says why the run has ended."""
        return (
            f"training ends: the held-out L1 has not fallen below {self._lowest:.4g} (step {self._best_step}) "
            f"for {self._steps} steps (optim.patience)"
        )
