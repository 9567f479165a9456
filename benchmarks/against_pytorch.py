"""Are we faster than PyTorch on this machine, and with less memory? `python -m benchmarks.against_pytorch --help` tells how to ask.

Both sides get the same weights (ours, through a file of the released format) and the same frames. First losses, gradient norms and animated
frames are compared, and nothing is timed when they differ. Then each side works in a process of its own, which stays alive, and the two are
told alternately to go on. What is measured:

- step: ours as `--mode=train` runs it, colour jitter and P_train inside, from uint8 frames on the host. PyTorch gets neither: in the place of
  P_train stands a plain tensor operation. The comparison favours PyTorch by what these two cost.
- animation: ours as `python -m maskanim_jax.animate` runs it, without the files. PyTorch twice: as the released code does it, frame by frame
  with the source's mask computed for each, and in batches of 8 with the source's mask computed once.
- memory: the largest resident set of a process that does nothing but one of the two, with our compilation cache warm.

PyTorch runs eagerly on all cores, in the memory layout (channels last or not) that is faster for the task here.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.jax_side import CONFIGS, OurSide, config_of, drawn_frames, export
from maskanim_jax.errors import UserError, exit_with_sentence
from maskanim_jax.utils.memory import HUGE_PAGES, TUNABLES

TASKS = ("step", "animation", "memory")
TURN = {256: (3, 8), 64: (5, 64)}
"""Steps and animated frames in one turn of a side; in turns of one step at 256 ours varied by half."""
ROUNDS = {256: 3, 64: 15}
GOALS = {"step": 0.7, "animation": 0.4, "memory": 0.8}
LOSS, NORM, FRAME = 1e-3, 1e-2, 1e-3
"""Largest differences: of a loss and of a network's gradient norm (as shares), of a pixel."""
PAUSE = 0.3
"""Seconds between turns, in which the other side's threads stop spinning."""
HUGE = {"ours": ("ours",), "both": ("ours", "pytorch"), "none": ()}
WAYS = {"released": "frame by frame as released", "batched": "in batches of 8"}


def serve(side: str, task: str, size: int, batch: int, folder: Path) -> None:
    """A worker: reads one JSON request a line from stdin, and answers each with a line on stdout until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints does not come between the answers
    config = config_of(size)
    source, driving = drawn_frames(batch, size, 1), drawn_frames(batch, size, 2)
    rng = np.random.default_rng(3)
    perturbed = rng.integers(0, 256, (batch, config.mask.size, config.mask.size, 1)).astype(np.float32) / 255
    with np.load(folder / "vgg.npz", allow_pickle=False) as stored:
        vgg = dict(stored) if task == "step" else {}
    if side == "ours":
        worker: Any = OurSide(config, vgg, task, batch)
    else:
        from benchmarks.torch_model import TorchSide

        worker = TorchSide(config, folder / "weights.pth.tar", vgg, task)
    del vgg
    for line in sys.stdin:
        request = json.loads(line)
        do, answer = request["do"], None
        if do == "compare":
            answer = worker.compare(source, driving, perturbed)
        elif do == "step":
            answer = worker.step(source, driving, request["count"])
        elif do == "animate":
            video = drawn_frames(request["count"], size, 4)
            answer, frames = worker.animate(source[0], video, request["way"])
            if "write" in request:
                np.save(folder / request["write"], frames)
        elif do == "layout":
            worker.layout(request["last"])
        elif do == "peak":
            answer = peak_memory()
        print(json.dumps(answer), file=answers, flush=True)


def peak_memory() -> float:
    """Largest resident set of this process in MiB. Linux' `ru_maxrss` would have the parent's in it."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


class Worker:
    """A side in a process of its own; a context, which ends the process."""

    def __init__(self, side: str, task: str, size: int, batch: int, folder: Path, huge_pages: bool) -> None:
        self.name = f"the {side} worker"
        pages = {TUNABLES: HUGE_PAGES if huge_pages else ""}
        command = [sys.executable, "-m", "benchmarks.against_pytorch", f"--size={size}", f"--folder={folder}"]
        self._process = subprocess.Popen(
            [*command, f"--worker={side},{task},{batch}"],
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
        """Sends a request and waits for its answer; raises UserError when the worker died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            print(json.dumps({"do": do, **given}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise UserError(
                f"{self.name} ended while it did '{do}': what it printed above says why, often too little memory"
            )
        return json.loads(line)


# -- the comparison ------------------------------------------------------------------------------------------------------------------------


class Comparison:
    """One run of the benchmark; `rows` is what it found, a dict a line of the table."""

    def __init__(self, size: int, rounds: int, folder: Path, huge_pages: Sequence[str]) -> None:
        self.size, self.rounds, self.folder, self.huge_pages = size, rounds, folder, huge_pages
        self.steps, self.frames = TURN[size]
        self.last: dict[str, bool] = {}
        self.rows: list[dict[str, Any]] = []

    def _workers(self, stack: ExitStack, task: str, batch: int) -> dict[str, Worker]:
        return {side: stack.enter_context(self._worker(side, task, batch)) for side in ("ours", "pytorch")}

    def _worker(self, side: str, task: str, batch: int) -> Worker:
        return Worker(side, task, self.size, batch, self.folder, side in self.huge_pages)

    def step(self) -> None:
        """Training steps at each batch of the size."""
        for batch in CONFIGS[self.size][1]:
            with ExitStack() as stack:
                workers = self._workers(stack, "step", batch)
                found = {side: worker("compare") for side, worker in workers.items()}
                check(found["ours"], found["pytorch"])
                request: dict[str, Any] = {"do": "step", "count": self.steps}
                self._choose_layout("step", workers["pytorch"], request)
                workers["ours"]("step", count=2)  # compiles, and ends the epoch without r
                self._alternate("step", f"step, batch {batch}", workers, {"ours": request, "": request})

    def animation(self) -> None:
        """Frames of a video, against both ways of PyTorch."""
        with ExitStack() as stack:
            workers = self._workers(stack, "animation", 1)
            pictures = {}
            for name, worker in workers.items():
                worker("animate", count=8, way="batched", write=f"{name}.npy")
                pictures[name] = np.load(self.folder / f"{name}.npy", allow_pickle=False)
            if (worst := float(np.abs(pictures["ours"] - pictures["pytorch"]).max())) > FRAME:
                raise UserError(f"animated frames differ by {worst:.1e}, more than {FRAME:g}: mend that before timing")
            spread = float(np.ptp(pictures["ours"], 0).max())  # of equal frames nothing would be learned
            print(f"animated frames agree: largest difference {worst:.1e}, among themselves {spread:.1e}", flush=True)
            request: dict[str, Any] = {"do": "animate", "count": self.frames}
            self._choose_layout("animation", workers["pytorch"], request | {"way": "batched"})
            for way in WAYS:
                workers["pytorch"](**request, way=way)
            requests = {"ours": request | {"way": "batched"}} | {way: request | {"way": way} for way in WAYS}
            self._alternate("animation", "animated frame", workers, requests)

    def memory(self) -> None:
        """Peak memory of each side and task, each in a fresh process."""
        for task, batch in (("step", CONFIGS[self.size][1][0]), ("animation", 1)):
            request: dict[str, Any] = (
                {"do": "step", "count": 2} if task == "step" else {"do": "animate", "count": 16, "way": "batched"}
            )
            found = {}
            # Ours twice: the first fills the compilation cache.
            for side in tqdm(("ours", "ours", "pytorch"), desc=f"memory, {task}", unit="process"):
                with self._worker(side, task, batch) as worker:
                    if side == "pytorch":
                        if task not in self.last:
                            self._choose_layout(task, worker, request)
                        worker("layout", last=self.last[task])
                    worker(**request)
                    found[side] = worker("peak")
            what = f"peak memory, {task}" + (f", batch {batch}" if task == "step" else ", batches of 8")
            self._row("memory", what, "MiB", [found["ours"]], [found["pytorch"]])

    def _choose_layout(self, task: str, worker: Worker, request: dict[str, Any]) -> None:
        """The layout that is faster in PyTorch, each after a warm-up."""
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

    def _alternate(self, task: str, what: str, workers: dict[str, Worker], requests: dict[str, dict[str, Any]]) -> None:
        """Rounds in which every request has its turn, the first by us, the others by PyTorch."""
        spent: dict[str, list[float]] = {name: [] for name in requests}
        for number in tqdm(range(self.rounds), desc=what, unit="round"):
            for name in sorted(requests, reverse=number % 2 == 1):
                time.sleep(PAUSE)
                spent[name].append(workers["ours" if name == "ours" else "pytorch"](**requests[name]))
        for name in requests:
            if name != "ours":
                told = f"{what}; PyTorch {WAYS[name]}" if name else what
                self._row(task, told, "s", spent["ours"], spent[name])

    def _row(self, task: str, what: str, unit: str, ours: list[float], pytorch: list[float]) -> None:
        ratios = [one / other for one, other in zip(ours, pytorch, strict=True)]
        values = {"task": task, "what": what, "unit": unit, "ours": ours, "pytorch": pytorch}
        self.rows.append(values | {"ratio": statistics.median(ratios), "ratios": ratios, "goal": GOALS[task]})


def check(ours: dict[str, dict[str, float]], theirs: dict[str, dict[str, float]]) -> None:
    """Raises UserError when losses or gradient norms are not equal."""
    for kind, most in (("losses", LOSS), ("norms", NORM)):
        if ours[kind].keys() != theirs[kind].keys():
            raise UserError(
                f"the sides have other {kind} ({', '.join(ours[kind].keys() ^ theirs[kind].keys())}): mend that"
            )
        shares = {name: abs(ours[kind][name] - value) / abs(value) for name, value in theirs[kind].items() if value}
        for name, share in shares.items():
            if not share <= most:
                pair = f"{ours[kind][name]:.6g} here, {theirs[kind][name]:.6g} in PyTorch"
                raise UserError(
                    f"{kind} of {name} differ by {share:.1e}, more than {most:g} ({pair}): mend that before timing"
                )
        print(f"{kind} agree: " + ", ".join(f"{name} {share:.1e}" for name, share in shares.items()), flush=True)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: median (smallest to largest) of both sides, and the median of the rounds' ratios."""

    def cell(values: list[float], unit: str) -> str:
        middle = f"{statistics.median(values):.4g} {unit}"
        return middle if len(values) == 1 else f"{middle} ({min(values):.4g} to {max(values):.4g})"

    lines = ["| | ours | PyTorch | ours / PyTorch | goal |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        ratio = cell(row["ratios"], "").replace(" ", "", 1) if len(row["ratios"]) == 1 else cell(row["ratios"], "")
        lines.append(
            f"| {row['what']} | {cell(row['ours'], row['unit'])} | {cell(row['pytorch'], row['unit'])} "
            f"| {ratio.replace('  ', ' ')} | {row['goal']} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; raises UserError."""
    flags = argparse.ArgumentParser(
        prog="python -m benchmarks.against_pytorch", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = flags.add_argument
    add("--size", type=int, choices=sorted(CONFIGS), default=64, help="256: released taichi; 64 (default): puppets")
    add("--only", default=",".join(TASKS), help=f"some of {','.join(TASKS)}")
    add("--rounds", type=int, help=f"turns of each side; default {ROUNDS}")
    add("--huge_pages", choices=HUGE, default="both", help="who gets them, as our commands do; default both")
    add("--json", type=Path, metavar="FILE", help="new file for all figures")
    add("--vgg", choices=("imagenet", "untrained"), default="imagenet", help="untrained needs no download; as fast")
    add("--worker", help=argparse.SUPPRESS)
    add("--folder", type=Path, help=argparse.SUPPRESS)
    args = flags.parse_args(argv)
    if args.worker:
        side, task, batch = args.worker.split(",")
        if side == "export":
            export(args.folder, args.size, args.vgg == "untrained")
        else:
            serve(side, task, args.size, int(batch), args.folder)
        return 0
    only = args.only.split(",")
    if wrong := [task for task in only if task not in TASKS]:
        raise UserError(f"--only={args.only} has '{wrong[0]}': give some of {','.join(TASKS)}")
    rounds = ROUNDS[args.size] if args.rounds is None else args.rounds
    if rounds < 1:
        raise UserError(f"--rounds={rounds} cannot be: give 1 or more")
    if args.json and args.json.exists():
        raise UserError(f"{args.json} is there already: give a new file as --json, or move it away")
    if importlib.util.find_spec("torch") is None:
        raise UserError("PyTorch is not installed: `pip install -e '.[benchmarks]'` brings it")
    with tempfile.TemporaryDirectory() as folder:
        comparison = Comparison(args.size, rounds, Path(folder), HUGE[args.huge_pages])
        command = [sys.executable, "-m", "benchmarks.against_pytorch", f"--size={args.size}", f"--vgg={args.vgg}"]
        if subprocess.run([*command, "--worker=export,,0", f"--folder={folder}"]).returncode:
            raise UserError("the weights could not be exported: the sentence above says why")
        for task in TASKS:
            if task in only:
                getattr(comparison, task)()
    versions = {name: importlib.metadata.version(name) for name in ("jax", "torch")}
    about = {"config": CONFIGS[args.size][0], "cores": os.cpu_count(), "rounds": rounds, **versions}
    about["huge pages"] = args.huge_pages
    layouts = {task: "channels last" if last else "channels first" for task, last in comparison.last.items()}
    print("\n" + ", ".join(f"{name} {value}" for name, value in (about | {"PyTorch's layout": layouts}).items()))
    print("Medians, smallest to largest of the rounds in brackets; busy machines disturb times more than ratios.\n")
    print(table(comparison.rows))
    if args.json:
        temporary = args.json.with_name(f".{args.json.name}.{os.getpid()}.part")
        temporary.write_text(json.dumps(about | {"layouts": layouts, "rows": comparison.rows}, indent=2) + "\n")
        os.replace(temporary, args.json)
    return 0


if __name__ == "__main__":
    exit_with_sentence(main)
