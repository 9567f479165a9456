"""What were the metrics and the speed of the last steps?"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from maskanim_jax.systems.interface import System
from maskanim_jax.training.step import FINITE

MAX_INFLIGHT_STEPS = 2
"""How many steps the devices may lag behind the loop: enough to stay busy, few
enough to measure data waits.
"""


class NonFiniteStep(Exception):
    """A step that must not be saved: `figures` are its metrics, `names` the non-finite ones."""

    def __init__(self, step: int, figures: dict[str, float]) -> None:
        super().__init__(f"step {step} is not finite")
        self.step, self.figures = step, figures
        self.names = [name for name, value in figures.items() if not math.isfinite(value)]


class MetricAccumulator:
    """Collects the metrics since the last log line; they stay on the devices until they are needed.

    `before`: what `pending` returned when the run was stopped between two log lines; the first line
    then includes those steps.
    """

    def __init__(
        self, system: System, steps_per_epoch: int, before: Mapping[str, Sequence[float]] | None = None
    ) -> None:
        self._system, self._steps_per_epoch = system, steps_per_epoch
        self.reset()
        for name, values in (before or {}).items():
            self._before[name] = [np.float32(value) for value in values]

    def reset(self) -> None:
        """Restarts the counting of time and steps."""
        self._before: dict[str, list[np.float32]] = {}
        self._metrics: list[dict[str, jax.Array]] = []
        self.data_wait_s, self._since = 0.0, time.perf_counter()

    def add(self, metrics: dict[str, jax.Array]) -> None:
        """Adds the metrics of a step; blocks until at most
        MAX_INFLIGHT_STEPS steps are unfinished.
        """
        self._metrics.append(metrics)
        if len(self._metrics) > MAX_INFLIGHT_STEPS:
            jax.block_until_ready(self._metrics[-1 - MAX_INFLIGHT_STEPS])

    def check(self, step: int) -> None:
        """Raises NonFiniteStep for the first bad step of the window, whose last step is `step`."""
        _check(jax.device_get(self._metrics), step)

    def _values(self, fetched: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
        names = fetched[0] if fetched else self._before
        return {
            name: [*self._before.get(name, ()), *(metrics[name] for metrics in fetched)]
            for name in names
            if name != FINITE
        }

    def pending(self) -> dict[str, list[float]]:
        """The metrics (float32) of each step since the last log line, for a
        checkpoint between two log lines.
        """
        values = self._values(jax.device_get(self._metrics))
        return {name: [float(value) for value in each] for name, each in values.items()}

    def flush(self, step: int) -> dict[str, float]:
        """Returns the means, learning rates and speed since the last log line, then resets.
        Fetches from the devices.

        Raises NonFiniteStep for the first bad step; nothing is saved before this check.
        """
        fetched = jax.device_get(self._metrics)
        spent = time.perf_counter() - self._since
        _check(fetched, step)
        figures = {name: float(np.mean(values)) for name, values in self._values(fetched).items()}
        rates = self._system.learning_rates(step - 1, self._steps_per_epoch)
        figures |= {f"learning_rate_{name}": rate for name, rate in rates.items()}
        figures |= {
            "epoch": step / self._steps_per_epoch,
            "steps_per_second": len(fetched) / spent,
            "data_wait_share": self.data_wait_s / spent,
        }
        self.reset()
        return figures


def _check(fetched: Sequence[Mapping[str, Any]], last: int) -> None:
    for step, metrics in enumerate(fetched, last - len(fetched) + 1):
        if not metrics[FINITE]:
            raise NonFiniteStep(step, {name: float(value) for name, value in metrics.items() if name != FINITE})
