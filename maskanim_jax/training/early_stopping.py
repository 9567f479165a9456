"""When does a run end before its last step?"""

from __future__ import annotations

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
