"""How does each side run? In its own long-lived process, which reads one request per line."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.comparison.engines import ENGINES, EngineSide
from benchmarks.comparison.start import (
    config_of,
    export_onnx,
    export_weights,
    puppet_pairs,
    puppet_video,
    random_numbers,
)
from maskanim_jax.errors import UserError
from maskanim_jax.utils.memory import HUGE_PAGES, TUNABLES

OURS, PYTORCH, COMPILED = "ours", "PyTorch", "torch.compile"


class Task(NamedTuple):
    """The arguments of a worker."""

    side: str
    task: str  # "step" or "animation"
    system: str
    size: int
    batch: int

    def flag(self) -> str:
        """The task as command-line arguments."""
        return ",".join(map(str, self))

    @classmethod
    def read(cls, flag: str) -> Task:
        """Parses what `flag` wrote."""
        side, task, system, size, batch = flag.split(",")
        return cls(side, task, system, int(size), int(batch))


def make(task: Task, folder: Path) -> Any:
    """The object that runs the side."""
    config = config_of(task.system, task.size)
    if task.side in ENGINES:
        return EngineSide(task.side, folder)
    with np.load(folder / "vgg.npz", allow_pickle=False) as stored:
        vgg = dict(stored) if task.task == "step" else {}
    if task.side == OURS:
        from benchmarks.comparison.ours import OurSide

        return OurSide(config, vgg, task.task, task.batch)
    from benchmarks.pytorch.side import TorchSide

    return TorchSide(config, folder / f"{task.task}.pth.tar", vgg, task.task, compiled=task.side == COMPILED)


def serve(task: Task, folder: Path) -> None:
    """A worker: reads one JSON request per line from stdin and answers each with a line on
    stdout, until stdin ends.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries' output must not mix with the answers
    worker = make(task, folder)
    source, driving = puppet_pairs(task.batch, task.size)
    for line in sys.stdin:
        request = json.loads(line)
        do, answer = request["do"], None
        if do == "compare":
            answer = worker.compare(source, driving, random_numbers(config_of(task.system, task.size), task.batch))
        elif do == "step":
            answer = worker.step(source, driving, request["count"])
        elif do == "animate":
            video = puppet_video(request["count"], task.size, 19)
            answer, frames = worker.animate(source[0], video, request["way"])
            if "write" in request:
                np.save(folder / request["write"], frames)
        elif do == "layout":
            worker.layout(request["last"])
        elif do == "peak":
            answer = peak_memory()
        print(json.dumps(answer), file=answers, flush=True)


def peak_memory() -> float:
    """Peak resident set of this process in MiB. Linux's `ru_maxrss` would include the parent's."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


class Worker:
    """A side in its own process; a context manager that ends the process."""

    def __init__(self, task: Task, folder: Path, huge_pages: bool) -> None:
        self.name = f"the worker of {task.side}"
        pages = {TUNABLES: HUGE_PAGES if huge_pages else ""}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.comparison.worker", "--task", task.flag(), "--folder", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | pages,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __call__(self, do: str, **given: Any) -> Any:
        """Sends a request and waits for its answer; raises UserError if the worker died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            print(json.dumps({"do": do, **given}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise UserError(f"{self.name} ended during '{do}': see its output above; often memory was too small")
        return json.loads(line)


def export(folder: Path, system: str, size: int, untrained: bool, onnx: Sequence[int]) -> None:
    """Writes the inputs of all sides, in separate processes; raises UserError if that fails."""
    base = [sys.executable, "-m", "benchmarks.comparison.worker", f"--folder={folder}"]
    for batch in (0, *onnx):
        task = Task("untrained" if untrained else "imagenet", "export", system, size, batch)
        if subprocess.run([*base, "--task", task.flag()]).returncode:
            raise UserError("the weights could not be exported: see the output above")


def main(argv: Sequence[str] | None = None) -> None:
    """The worker's command, which only the benchmark calls."""
    flags = argparse.ArgumentParser()
    flags.add_argument("--task", required=True, type=Task.read)
    flags.add_argument("--folder", required=True, type=Path)
    args = flags.parse_args(argv)
    task: Task = args.task
    if task.task != "export":
        serve(task, args.folder)
    elif task.batch:
        export_onnx(args.folder, config_of(task.system, task.size), task.batch)
    else:
        export_weights(args.folder, config_of(task.system, task.size), task.side == "untrained")


if __name__ == "__main__":
    main()
