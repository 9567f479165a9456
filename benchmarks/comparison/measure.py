"""What is measured, and in which order? Steps, animation and memory of one system at one size."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.comparison.engines import ENGINES
from benchmarks.comparison.start import STEP_BATCHES
from benchmarks.comparison.table import FRAME, check
from benchmarks.comparison.worker import COMPILED, OURS, PYTORCH, Task, Worker
from maskanim_jax.errors import UserError

TURN = {256: (3, 8), 64: (5, 64)}
"""Steps and animated frames per turn of a side; with one step per turn at 256, the
JAX times varied by half.
"""
ROUNDS = {256: 3, 64: 15}
GOALS = {"step": 0.7, "animation": 0.4, "memory": 0.8}
"""Goals for the ratios to eager PyTorch."""
PAUSE = 0.3
"""Seconds between turns, so that the other sides' threads stop spinning."""
BATCHES = {64: (1, 4, 8), 256: (1, 4)}
"""Batch sizes of animation, by frame size; the fastest one of each side is determined first. ONNX
Runtime takes 10 GB for 8 frames of 256 x 256.
"""
Request = dict[str, Any]


class Comparison:
    """One run of the benchmark for one system; `rows` has the results, a dict per table row.

    `sides` are the ones that can be measured: "ours", "PyTorch" and perhaps others. `huge_pages`
    are the sides that use huge pages.
    """

    def __init__(
        self, system: str, size: int, rounds: int, folder: Path, sides: list[str], huge_pages: list[str]
    ) -> None:
        self.system, self.size, self.rounds, self.folder = system, size, rounds, folder
        self.sides, self.huge_pages = sides, huge_pages
        self.steps, self.frames = TURN[size]
        self.last: dict[str, bool] = {}
        self.best: dict[str, str] = {}
        self.rows: list[dict[str, Any]] = []

    def _workers(self, stack: ExitStack, task: str, batch: int, sides: list[str]) -> dict[str, Worker]:
        return {side: stack.enter_context(self._worker(side, task, batch)) for side in sides}

    def _worker(self, side: str, task: str, batch: int) -> Worker:
        pages = "ours" if side == OURS else "others"
        return Worker(Task(side, task, self.system, self.size, batch), self.folder, pages in self.huge_pages)

    @property
    def largest(self) -> str:
        """The largest batch size of animation."""
        return str(max(BATCHES[self.size]))

    def step(self) -> None:
        """Training steps at each batch size, against eager and compiled PyTorch."""
        sides = [side for side in self.sides if side not in ENGINES]
        for batch in STEP_BATCHES[self.size]:
            with ExitStack() as stack:
                workers = self._workers(stack, "step", batch, sides)
                check(workers[OURS]("compare"), workers[PYTORCH]("compare"))
                request: Request = {"do": "step", "count": self.steps}
                self._choose_layout("step", workers[PYTORCH], request)
                if COMPILED in workers:
                    workers[COMPILED]("layout", last=self.last["step"])
                    workers[COMPILED]("step", count=2)  # compiles
                workers[OURS]("step", count=2)  # compiles, and passes the epoch without r
                self._alternate("step", f"step, batch {batch}", workers, {side: (side, request) for side in workers})

    def animation(self) -> None:
        """Frames of a video: one at a time, and in each side's fastest batch size."""
        sides = [side for side in self.sides if side != COMPILED]
        with ExitStack() as stack:
            workers = self._workers(stack, "animation", 1, sides)
            self._compare_frames(workers)
            request: Request = {"do": "animate", "count": self.frames}
            self._choose_layout("animation", workers[PYTORCH], request | {"way": self.largest})
            for side, worker in workers.items():
                self.best[side] = self._best_batch(worker, request)
            print(
                "fastest batch sizes: " + ", ".join(f"{side} {batch}" for side, batch in self.best.items()), flush=True
            )
            one = {side: (side, request | {"way": "1"}) for side in workers}
            one[PYTORCH] = PYTORCH, request | {"way": "released"}
            many = {side: (side, request | {"way": self.best[side]}) for side in workers}
            self._alternate("animation", "animated frame, batch 1", workers, one)
            self._alternate("animation", f"animated frame, batch {self.best[OURS]}", workers, many, self.best)

    def memory(self) -> None:
        """Peak memory of each side and task, each in a fresh process."""
        for task, batch in (("step", STEP_BATCHES[self.size][0]), ("animation", 1)):
            request: Request = (
                {"do": "step", "count": 2} if task == "step" else {"do": "animate", "count": 16, "way": self.largest}
            )
            sides = [side for side in self.sides if side != COMPILED and (task == "animation" or side not in ENGINES)]
            found = {}
            # The JAX side runs twice: its first process fills the compilation cache.
            for side in tqdm([OURS, *sides], desc=f"memory, {task}", unit="process"):
                with self._worker(side, task, batch) as worker:
                    if side == PYTORCH:
                        if task not in self.last:
                            self._choose_layout(task, worker, request)
                        worker("layout", last=self.last[task])
                    worker(**request)
                    found[side] = worker("peak")
            what = f"peak memory, {task}, batch {batch if task == 'step' else self.largest}"
            for side in sides:
                if side != OURS:
                    self._row("memory", what, side, "MiB", [found[OURS]], [found[side]])

    def _compare_frames(self, workers: dict[str, Worker]) -> None:
        """Raises UserError when a side's frames differ from the JAX frames."""
        pictures = {}
        for number, (name, worker) in enumerate(workers.items()):
            worker("animate", count=8, way=self.largest, write=f"{number}.npy")
            pictures[name] = np.load(self.folder / f"{number}.npy", allow_pickle=False)
        spread = float(np.ptp(pictures[OURS], 0).max())  # identical frames would make the check meaningless
        for name, frames in pictures.items():
            worst = float(np.abs(pictures[OURS] - frames).max())
            if not worst <= FRAME:
                raise UserError(
                    f"animated frames of {name} differ by {worst:.1e}, more than {FRAME:g}: fix this before timing"
                )
            if name != OURS:
                print(
                    f"frames of {name} agree: largest difference {worst:.1e}; the frames differ among each other by {spread:.1e}"
                )

    def _best_batch(self, worker: Worker, request: Request) -> str:
        """The batch size with the least time per frame, each measured after a warm-up."""
        spent = {}
        for batch in map(str, BATCHES[self.size]):
            worker(**request, way=batch)
            spent[batch] = min(worker(**request, way=batch) for _ in range(2))
        return min(spent, key=spent.__getitem__)

    def _choose_layout(self, task: str, worker: Worker, request: Request) -> None:
        """The faster memory layout in PyTorch, each measured after a warm-up."""
        spent = {}
        for last in (False, True):
            worker("layout", last=last)
            worker(**request)
            spent[last] = min(worker(**request) for _ in range(1 if self.size == 256 else 3))
        self.last[task] = spent[True] < spent[False]
        worker("layout", last=self.last[task])
        worker(**request)
        print(
            f"PyTorch, {task}: {spent[False]:.4g} s, channels last {spent[True]:.4g} s; the faster is used", flush=True
        )

    def _alternate(
        self,
        task: str,
        what: str,
        workers: dict[str, Worker],
        requests: dict[str, tuple[str, Request]],
        batches: dict[str, str] | None = None,
    ) -> None:
        """Rounds in which every side has a turn, in alternating order; one row
        per side other than JAX.
        """
        spent: dict[str, list[float]] = {name: [] for name in requests}
        for number in tqdm(range(self.rounds), desc=f"{self.system}, {what}", unit="round"):
            for name in sorted(requests, reverse=number % 2 == 1):
                time.sleep(PAUSE)
                side, request = requests[name]
                spent[name].append(workers[side](**request))
        for name in requests:
            if name != OURS:
                other = name if batches is None else f"{name}, batch {batches[name]}"
                self._row(task, what, other, "s", spent[OURS], spent[name])

    def _row(self, task: str, what: str, other: str, unit: str, ours: list[float], theirs: list[float]) -> None:
        ratios = [one / another for one, another in zip(ours, theirs, strict=True)]
        told = f"{self.system}: {what}; {other}"
        goal = GOALS[task] if other.startswith(PYTORCH) else None
        values = {"system": self.system, "task": task, "what": told, "unit": unit, "ours": ours, "other": theirs}
        self.rows.append(values | {"ratio": statistics.median(ratios), "ratios": ratios, "goal": goal})
