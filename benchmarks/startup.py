"""How long does training take until the first step is done, with a cold and
a warm compilation cache?

`python benchmarks/startup.py` starts the training of a config in separate processes, first with an
empty cache folder and then with the filled one. It reads the time of the first step from the log.
Data is drawn before anything is timed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from maskanim_jax.errors import UserError, run_main  # noqa: E402

LINE = re.compile(r"first step after ([\d.]+) s \(compile cache (\w+), compiled and done in ([\d.]+) s\)")


def draw(path, shards, vgg):
    """Draws the data of a config; raises UserError for a config without drawn data."""
    from input_pipeline.from_config import ensure_shards

    spec = importlib.util.spec_from_file_location("config", path)
    if spec is None or not Path(path).is_file():
        raise UserError(f"{path} does not exist: give a file of configs/, such as configs/demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    config.data.shards = shards
    if not config.data.puppets.train_identities and not Path(shards).is_dir():
        raise UserError(f"{path} does not draw its own data: give --shards=SHARDS")
    config.data.puppets.train_identities, config.data.puppets.test_identities = 40, 2
    ensure_shards(config)
    return [
        f"--config={path}",
        f"--config.data.shards={shards}",
        "--config.data.puppets.train_identities=40",
        "--config.data.puppets.test_identities=2",
        "--config.optim.max_steps=1",
        f"--config.loss.vgg={vgg}",
        "--config.train.num_eval_clips=1",
    ]


def start(flags, cache, workdir):
    """One start: seconds from the command to the end of the first step, seconds of the step, number
    of compiled programs, CPU seconds of the run.
    """
    command = [sys.executable, "-m", "maskanim_jax.main", f"--workdir={workdir}", *flags]
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)}
    before, began = os.times(), time.time()
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    after = os.times()
    if done.returncode:
        raise UserError(f"the training failed: {done.stderr.strip().splitlines()[-1]}")
    records = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    record = next(each for each in records if LINE.match(each.get("text", "")))
    _, state, step = LINE.match(record["text"]).groups()
    cpu = sum(after[2:4]) - sum(before[2:4])
    return {
        "cache": state,
        "first step": record["time"] - began,
        "of which the step": float(step),
        "CPU of the whole run": cpu,
    }


def main(argv=None):
    """Prints a Markdown table and the ratios."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--config", default=str(ROOT / "configs" / "demo.py"), help="config file (default: the demo's)")
    flags.add_argument("--shards", default="", help="prepared data (default: puppets are drawn)")
    flags.add_argument("--vgg", default="untrained", choices=["untrained", "imagenet"], help="features of the loss")
    flags.add_argument("--repeats", type=int, default=1, help="warm starts (default 1)")
    given = flags.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        common = draw(given.config, given.shards or str(base / "shards"), given.vgg)
        rows = [
            start(common, base / "cache", base / f"run{number}")
            for number in tqdm(range(1 + given.repeats), desc="start", unit="start")
        ]
    print("| " + " | ".join(rows[0]) + " |\n" + "| --- " * len(rows[0]) + "|")
    for row in rows:
        print("| " + " | ".join(each if isinstance(each, str) else f"{each:.1f} s" for each in row.values()) + " |")
    ratio = min(row["first step"] for row in rows[1:]) / rows[0]["first step"] if len(rows) > 1 else float("nan")
    print(f"\nwarm / cold: {ratio:.2f}; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return 0


if __name__ == "__main__":
    run_main(main)
