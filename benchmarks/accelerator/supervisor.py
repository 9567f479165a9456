"""How is each part limited in time? It runs in its own process, which is
ended when its time is over.

Separate processes also separate the parts' peak memory and failures.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

from benchmarks.accelerator.report import Report

SHARE = 3.0
"""A part gets at most this many times its equal share of the remaining time."""
LEAST = 5.0
"""A part starts only if at least this many seconds are left."""


class Stopped(Exception):
    """SIGTERM or SIGINT arrived; the results so far are kept."""


class Supervisor:
    """Runs parts until `deadline` (of time.monotonic()), each in its own process."""

    def __init__(self, report: Report, worker: Sequence[str], deadline: float) -> None:
        self.report, self.worker, self.deadline = report, worker, deadline
        self._process: subprocess.Popen[str] | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, number: int, _: FrameType | None) -> None:
        raise Stopped(f"stopped by {signal.Signals(number).name}")

    def run(self, parts: Sequence[str]) -> None:
        """Runs the parts in order; raises Stopped. The report always has all results so far."""
        for position, part in enumerate(parts):
            left = self.deadline - time.monotonic()
            if left < LEAST:
                self.report.ended(part, "not started: no time was left")
                continue
            self._part(part, min(left, SHARE * left / (len(parts) - position)))

    def _part(self, part: str, seconds: float) -> None:
        began, over = time.monotonic(), threading.Event()
        print(f"{part}: at most {seconds:.0f} s", file=sys.stderr, flush=True)
        self._process = process = subprocess.Popen(
            [*self.worker, f"--part={part}"], stdout=subprocess.PIPE, text=True, start_new_session=True
        )

        def end() -> None:
            over.set()
            self._kill()

        clock = threading.Timer(seconds, end)
        clock.daemon = True
        clock.start()
        how = "ended without a message"
        try:
            assert process.stdout is not None
            for line in process.stdout:
                self._take(part, json.loads(line))
            status = process.wait()
            how = "finished" if status == 0 else f"failed with status {status}: see its output above"
            if over.is_set():
                how = f"ended after {seconds:.0f} s: its time was over; its rows so far are kept"
        except Stopped as stopped:
            how = str(stopped)
            raise
        finally:
            clock.cancel()
            self._kill()
            self.report.ended(part, how, time.monotonic() - began)
            print(f"{part}: {how}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)

    def _take(self, part: str, row: dict[str, Any]) -> None:
        if part == "device":
            self.report.about(row)
        else:
            self.report.row(part, row)

    def _kill(self) -> None:
        """Ends the worker and its child processes."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        process.wait()
