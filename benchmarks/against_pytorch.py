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

from maskanim_jax.errors import UserError, exit_with_sentence

TASKS = ("step", "animation", "memory")
CONFIGS = {256: ("configs/taichi.py:released", (2,)), 64: ("configs/puppets.py", (4, 8))}
"""Side of the frames: the config, and the batches of its training steps."""
TURN = {256: (1, 8), 64: (5, 64)}
"""Steps and animated frames in one turn of a side."""
ROUNDS = {256: 3, 64: 15}
GOALS = {"step": 0.7, "animation": 0.4, "memory": 0.8}
LOSS, NORM, FRAME = 1e-3, 1e-2, 1e-3
"""Largest differences: of a loss and of a network's gradient norm (as shares), of a pixel."""
PAUSE = 0.3
"""Seconds between turns, in which the other side's threads stop spinning."""
WAYS = {"released": "frame by frame as released", "batched": "in batches of 8"}


class OurSide:
    """What a worker of the comparison does in JAX, by the functions that the commands use."""

    def __init__(self, config: Any, vgg: dict[str, np.ndarray], task: str, batch: int) -> None:
        import jax

        from maskanim_jax import platform
        from maskanim_jax.losses.vgg import used_weights
        from maskanim_jax.mesh import everywhere, make_mesh, replicated
        from maskanim_jax.state import init_state, make_step
        from maskanim_jax.systems import build

        # `maskanim_jax.animate` runs on one device, whatever the training does.
        config.cpu_devices = config.cpu_devices if task == "step" else 1
        platform.prepare(config)
        self.config = config
        self.system: Any = build(config)
        if task == "step":
            self.mesh = make_mesh(batch)

            def start() -> Any:  # an epoch of one step: r is trained from the second on
                state = init_state(self.system, config.seed, 1)
                return state._replace(params=lively(state.params))

            self.state = jax.jit(start, out_shardings=replicated(self.mesh))()
            self.frozen = everywhere(self.mesh, used_weights(vgg, config.loss.taps))
            self.run = make_step(self.system, config.seed, 1, self.mesh)
        else:
            self.variables = lively_variables(self.system, config.seed)

    def compare(self, source: np.ndarray, driving: np.ndarray, perturbed: np.ndarray) -> dict[str, dict[str, float]]:
        """Losses and gradient norms of one batch without augmentation; `perturbed` (N, L, L, 1) stands for P_train's output."""
        import jax

        from maskanim_jax.mesh import replicated, split, to_devices
        from maskanim_jax.systems.perturbed_masks import system as system_module

        def total(params: Any, stats: Any, frozen: Any, source: Any, driving: Any, perturbed: Any) -> Any:
            system_module.p_train = lambda *_: perturbed
            found = self.system.losses(params, stats, frozen, source, driving, driving, jax.random.key(0), True)[0]
            return sum(found.values()), found

        same, parts = replicated(self.mesh), split(self.mesh)
        run = jax.jit(jax.value_and_grad(total, has_aux=True), in_shardings=(same, same, same, parts, parts, parts))
        batch = [to_devices(self.mesh, x) for x in (unit(source), unit(driving), perturbed)]
        original = system_module.p_train
        try:
            (_, losses), grads = run(self.state.params, self.state.stats, self.frozen, *batch)
        finally:
            system_module.p_train = original
        norms = {
            name: sum(float(np.square(np.asarray(leaf, np.float64)).sum()) for leaf in jax.tree.leaves(tree)) ** 0.5
            for name, tree in grads.items()
        }
        return {"losses": {name: float(value) for name, value in losses.items()}, "norms": norms}

    def step(self, source: np.ndarray, driving: np.ndarray, count: int) -> float:
        """Seconds for one of `count` training steps."""
        import jax

        from maskanim_jax.mesh import to_devices

        began = time.perf_counter()
        for _ in range(count):
            batch = [to_devices(self.mesh, frames) for frames in (source, driving)]
            self.state, metrics = self.run(self.state, self.frozen, *batch)
        jax.block_until_ready((self.state, metrics))
        if not np.isfinite(metrics["loss"]):
            raise FloatingPointError("the loss is not finite")
        return (time.perf_counter() - began) / count

    def animate(self, source: np.ndarray, video: np.ndarray, way: str) -> tuple[float, np.ndarray]:
        """(seconds for a frame, fine frames); there is one way only."""
        from maskanim_jax.animate import animate

        options = self.system.animation_options({})
        began = time.perf_counter()
        frames = [pictures["fine"] for pictures in animate(self.system, self.variables, source, video, options)]
        return (time.perf_counter() - began) / len(video), np.stack(frames)


def lively(params: Any) -> Any:
    """Fresh parameters with wider kernels: in evaluation mode the initial ones let every signal die out, and all frames look alike."""
    import jax

    def wider(path: Any, leaf: Any) -> Any:
        return leaf if leaf.ndim < 4 else leaf * (5 if "last" in jax.tree_util.keystr(path) else 6**0.5)

    return jax.tree_util.tree_map_with_path(wider, params)


def lively_variables(system: Any, seed: int) -> Any:
    """What both sides start from."""
    import jax

    def start(key: Any) -> Any:
        fresh = system.init(key)
        return fresh._replace(params=lively(fresh.params))

    return jax.jit(start)(jax.random.key(seed))


def unit(frames: np.ndarray) -> np.ndarray:
    """uint8 to float32 in [0, 1]."""
    return frames.astype(np.float32) / 255


# -- a worker process ----------------------------------------------------------------------------------------------------------------------


def drawn_frames(count: int, side: int, seed: int) -> np.ndarray:
    """(count, side, side, 3) uint8: coloured squares with noise."""
    rng = np.random.default_rng(seed)
    squares = rng.integers(0, 200, (count, 8, 8, 3)).repeat(side // 8, 1).repeat(side // 8, 2)
    return (squares + rng.integers(0, 56, squares.shape)).astype(np.uint8)


def config_of(size: int) -> Any:
    """The config that is compared at this size."""
    from maskanim_jax.convert import load_config

    return load_config(CONFIGS[size][0])


def export(folder: Path, size: int, untrained: bool) -> None:
    """Writes what both sides start from: fresh weights as a file of the released format, and VGG-19.

    The file is the exporter's own (`file_tree`, `write_tensors`) also where the released code could not follow the config, as it lacks the
    small recipe's temperatures and border: tensors and names are the same, and the PyTorch writing knows these settings.
    """
    import jax

    from maskanim_jax.systems import build
    from maskanim_jax.systems.released_format import file_tree, modules, released
    from maskanim_jax.torch_writer import write_tensors
    from maskanim_jax.train import vgg_weights

    config = config_of(size)
    if untrained:
        config.loss.vgg = "untrained"
    np.savez(folder / "vgg.npz", **vgg_weights(config))  # type: ignore[arg-type, unused-ignore]
    layout, system = released(config).layout(config), build(config)
    variables = jax.device_get(lively_variables(system, config.seed))
    write_tensors(
        folder / "weights.pth.tar",
        file_tree(variables, {}, {}, layout, 0, {module: {} for module in modules(layout)}),
    )


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

    def __init__(self, side: str, task: str, size: int, batch: int, folder: Path) -> None:
        self.name = f"the {side} worker"
        command = [sys.executable, "-m", "benchmarks.against_pytorch", f"--size={size}", f"--folder={folder}"]
        self._process = subprocess.Popen(
            [*command, f"--worker={side},{task},{batch}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
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

    def __init__(self, size: int, rounds: int, folder: Path) -> None:
        self.size, self.rounds, self.folder = size, rounds, folder
        self.steps, self.frames = TURN[size]
        self.last: dict[str, bool] = {}
        self.rows: list[dict[str, Any]] = []

    def _workers(self, stack: ExitStack, task: str, batch: int) -> dict[str, Worker]:
        return {
            side: stack.enter_context(Worker(side, task, self.size, batch, self.folder)) for side in ("ours", "pytorch")
        }

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
                with Worker(side, task, self.size, batch, self.folder) as worker:
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
        comparison = Comparison(args.size, rounds, Path(folder))
        command = [sys.executable, "-m", "benchmarks.against_pytorch", f"--size={args.size}", f"--vgg={args.vgg}"]
        if subprocess.run([*command, "--worker=export,,0", f"--folder={folder}"]).returncode:
            raise UserError("the weights could not be exported: the sentence above says why")
        for task in TASKS:
            if task in only:
                getattr(comparison, task)()
    versions = {name: importlib.metadata.version(name) for name in ("jax", "torch")}
    about = {"config": CONFIGS[args.size][0], "cores": os.cpu_count(), "rounds": rounds, **versions}
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
