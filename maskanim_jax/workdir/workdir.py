"""What does training write besides checkpoints?

Config, log, records of starts and deviations from the paper.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
from ml_collections import ConfigDict

from maskanim_jax.workdir.config import check_config_unchanged, diff_config, write_config
from maskanim_jax.workdir.logs import MetricWriter
from maskanim_jax.workdir.provenance import append_run_record, write_paper_deviations, write_parameters


class Workdir:
    """The folder of a run that trains.

    Every process has one, but only process 0, the leader, writes. Every method raises UserError
    when the folder can't be written.
    """

    def __init__(self, path: Path, leader: bool = True) -> None:
        self.path, self.leader = path, leader
        self.log: MetricWriter | None = None
        """The leader's log, while it is `opened`."""
        self.changed: list[str] = []
        """Changes since the last start, one clause each: config fields,
        versions and git revision.
        """
        self._unsettled = False

    def claim(self, config: ConfigDict, allow_config_change: bool = False) -> None:
        """Claims the folder for this config; raises UserError for another run's,
        unless `allow_config_change`.

        A changed config is written only by `settle`: until then the folder keeps the one that
        matches its checkpoints.
        """
        differ, harmless = diff_config(self.path, config)
        check_config_unchanged(self.path, [] if allow_config_change else differ)
        self.changed, self._unsettled = [*differ, *harmless], bool(differ)
        if not differ:
            write_config(self.path, config)

    def settle(self, config: ConfigDict) -> None:
        """Writes a changed config after the state was restored with it."""
        if self._unsettled:
            write_config(self.path, config, allow_config_change=True)

    def describe(self, paper_deviations: Sequence[str]) -> None:
        """Writes the run's deviations from the paper, for the report."""
        if self.leader:
            write_paper_deviations(self.path, paper_deviations)

    @contextlib.contextmanager
    def opened(self, step: int) -> Iterator[None]:
        """Opens the log, which continues after `step`, until the end of the `with`."""
        with MetricWriter(self.path, step) if self.leader else contextlib.nullcontext() as self.log:
            yield

    def begin(self, start: Mapping[str, Any], params: Mapping[str, Any]) -> None:
        """Adds this start to run.json, and lists the parameters of all
        networks in parameters.txt.
        """
        if self.leader:
            self.changed += append_run_record(self.path, start)
            write_parameters(self.path, params)

    def text(self, step: int, *lines: str) -> None:
        """Logs sentences."""
        if self.log is not None:
            for line in lines:
                self.log.text(step, line)

    def scalars(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Logs numbers by name."""
        if self.log is not None:
            self.log.scalars(step, values)

    def pictures(self, step: int, named: Mapping[str, np.ndarray]) -> None:
        """Logs (H, W, 3) uint8 pictures by name."""
        if self.log is not None:
            self.log.pictures(step, named)

    def sync(self) -> None:
        """Syncs the log to disk."""
        if self.log is not None:
            self.log.sync()
