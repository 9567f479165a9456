"""How is a training run on a Cloud TPU slice, over preemptions, and its result fetched? `python -m scripts.launch_tpu --help` tells.

Creates the slice, installs on all its hosts, trains, makes the slice again when it was preempted, fetches the workdir, deletes the slice.
`--dry_run` prints every command and runs none. Needs `gcloud`, logged in; see docs/tpu.md. Written from gcloud's reference; never run on a TPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from maskanim_jax.errors import RESTART, UserError, exit_with_sentence

HOME = "maskanim"
"""Folder on each host, in the user's home, with the virtual environment."""
MOUNT = "/mnt/maskanim"
"""Where the shared disk is on each host."""
GONE = ("PREEMPTED", "TERMINATED", "STOPPING", "STOPPED", "DELETING", "HIDDEN")
"""States of a slice that will not come back."""
POLL_SECONDS = 60
UNKNOWN = 10
"""So many times in a row the slice's state may be unknown (no network here) before it counts as gone."""
Run = Callable[[Sequence[str]], tuple[int, str]]


@dataclasses.dataclass(frozen=True)
class Slice:
    """What to create and what to run on it."""

    name: str
    zone: str
    project: str
    type: str
    runtime: str
    spot: bool
    package: str
    data: str
    share: str
    workdir: str
    flags: tuple[str, ...]
    results: Path

    def _gcloud(self, *arguments: str) -> list[str]:
        return ["gcloud", "compute", "tpus", *arguments, f"--zone={self.zone}", f"--project={self.project}"]

    def create(self) -> list[str]:
        """Asks for the slice; it may wait in a queue."""
        asked = [f"--node-id={self.name}", f"--accelerator-type={self.type}", f"--runtime-version={self.runtime}"]
        return self._gcloud("queued-resources", "create", self.name, *asked, *(["--spot"] if self.spot else []))

    def queue_state(self) -> list[str]:
        """Prints ACTIVE when the slice has been granted."""
        return self._gcloud("queued-resources", "describe", self.name, "--format=value(state.state)")

    def state(self) -> list[str]:
        """Prints READY while the hosts run."""
        return self._gcloud("tpu-vm", "describe", self.name, "--format=value(state)")

    def delete(self) -> list[str]:
        """Frees the slice, and with it the bill."""
        return self._gcloud("queued-resources", "delete", self.name, "--force", "--quiet")

    def on(self, worker: str, command: str) -> list[str]:
        """A shell command on one host, or on "all"."""
        return self._gcloud("tpu-vm", "ssh", self.name, f"--worker={worker}", f"--command={command}")

    def install(self) -> list[str]:
        """The package, the shared disk and the data, on all hosts; what is there already is kept."""
        lines = [
            "set -e",
            "python3 -m pip install --quiet --user uv",  # the image's own Python may be too old
            f"[ -d ~/{HOME} ] || python3 -m uv venv --quiet --python 3.12 ~/{HOME}",
            f"python3 -m uv pip install --quiet --python ~/{HOME}/bin/python {shlex.quote('jax[tpu]')} {shlex.quote(self.package)}",
            "command -v mount.nfs > /dev/null || sudo apt-get -qq install -y nfs-common",
            f"sudo mkdir -p {MOUNT}",
            f"mountpoint -q {MOUNT} || sudo mount -t nfs {shlex.quote(self.share)} {MOUNT}",
            f"sudo chmod a+rwx {MOUNT}",
            f"mkdir -p ~/{HOME}/data",
            f"gcloud storage rsync --recursive {shlex.quote(self.data)} ~/{HOME}/data",
            f"~/{HOME}/bin/python -m maskanim_jax.weights vgg19",
        ]
        return self.on("all", "; ".join(lines))

    def train(self) -> list[str]:
        """Starts training on all hosts and leaves it running there; does nothing where it runs already.

        Status 75 starts it again at once; any other ends it, and is written down.
        """
        main = [f"--workdir={MOUNT}/{self.workdir}", *self.flags]
        once = f"~/{HOME}/bin/python -m maskanim_jax.main {shlex.join(main)} --config.data.shards=$HOME/{HOME}/data"
        loop = (
            f"rm -f ~/{HOME}/status; while true; do MASKANIM_DISTRIBUTED=1 {once}; s=$?; "
            f'[ "$s" = {RESTART} ] || break; sleep 5; done; echo "$s" > ~/{HOME}/status'
        )
        detached = f"nohup setsid flock -n ~/{HOME}/lock bash -c {shlex.quote(loop)} >> ~/{HOME}/log 2>&1 < /dev/null &"
        return self.on("all", detached)

    def progress(self) -> list[str]:
        """Prints the last line of the first host's log, and behind it "status N" once training has ended."""
        return self.on("0", f'tail -n 1 ~/{HOME}/log; [ ! -e ~/{HOME}/status ] || echo "status $(cat ~/{HOME}/status)"')

    def fetch(self) -> list[str]:
        """Copies the workdir here."""
        there = f"{self.name}:{MOUNT}/{self.workdir}"
        return self._gcloud("tpu-vm", "scp", "--recursive", "--worker=0", there, str(self.results))

    def commands(self) -> list[tuple[str, list[str]]]:
        """All commands in order, with what each does; those that are repeated once."""
        return [
            ("ask for the slice", self.create()),
            ("every minute, until it prints ACTIVE", self.queue_state()),
            ("on all hosts: install, mount the shared disk, copy the data", self.install()),
            ("on all hosts: train, again after status 75", self.train()),
            (
                "every minute: is the slice READY? if not, delete it and begin above; the workdir is on the shared disk",
                self.state(),
            ),
            ("every minute, until it prints a status", self.progress()),
            ("fetch the workdir", self.fetch()),
            ("delete the slice", self.delete()),
        ]


def launch(wanted: Slice, run: Run, *, restarts: int, keep: bool, sleep: Callable[[float], None] = time.sleep) -> int:
    """Trains until the end over at most `restarts` new slices; the training's exit status. Raises UserError."""
    try:
        for attempt in range(restarts + 1):
            if attempt:
                print(f"the slice is gone; making it again ({attempt} of {restarts})", flush=True)
                run(wanted.delete())
            status = _follow(wanted, run, sleep) if _make(wanted, run, sleep) else None
            if status is not None:
                if run(wanted.fetch())[0]:
                    print(
                        f"the workdir couldn't be copied here; it is on the shared disk, {wanted.share}",
                        file=sys.stderr,
                    )
                return status
        raise UserError(f"the slice was lost {restarts + 1} times: give more --restarts, or no --spot")
    finally:
        if keep:
            print(f"the slice is kept, and costs; delete it with\n{shlex.join(wanted.delete())}")
        else:
            run(wanted.delete())


def _make(wanted: Slice, run: Run, sleep: Callable[[float], None]) -> bool:
    """Creates, waits, installs and starts training; False when the slice was lost meanwhile. Raises UserError."""
    _must(run, wanted.create(), "the slice can't be asked for")
    while (state := run(wanted.queue_state())[1].strip()) != "ACTIVE":
        if state in ("FAILED", "SUSPENDED", ""):
            raise UserError(f"the slice was not granted (state {state or 'unknown'}): try another --zone or --type")
        sleep(POLL_SECONDS)
    for command, what in (
        (wanted.install(), "a host can't be prepared"),
        (wanted.train(), "training can't be started"),
    ):
        if run(command)[0]:
            if run(wanted.state())[1].strip() in GONE:
                return False
            _must(run, command, what)  # once more, since logging in may fail right after the start
    return True


def _follow(wanted: Slice, run: Run, sleep: Callable[[float], None]) -> int | None:
    """Waits for training to end: its status, or None when the slice is gone."""
    unknown = 0
    while True:
        sleep(POLL_SECONDS)
        state = run(wanted.state())[1].strip()
        unknown = 0 if state else unknown + 1
        if state in GONE or unknown == UNKNOWN:
            return None
        if not state:
            continue
        text = run(wanted.progress())[1].strip()
        print(text.splitlines()[0] if text else "(nothing in the log yet)", flush=True)
        if found := re.search(r"^status (\d+)$", text, re.MULTILINE):
            return int(found[1])


def _must(run: Run, command: Sequence[str], what: str) -> None:
    if run(command)[0]:
        raise UserError(f"{what}: gcloud says why above; the command was {shlex.join(command)}")


def really(command: Sequence[str]) -> tuple[int, str]:
    """Runs a command: (exit status, what it printed); errors go to the terminal."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    except FileNotFoundError as error:
        raise UserError(
            "gcloud is not installed: see cloud.google.com/sdk, and log in with `gcloud auth login`"
        ) from error
    return done.returncode, done.stdout


def parser() -> argparse.ArgumentParser:
    """The flags of the command; what follows `--` goes to `maskanim_jax.main`."""
    flags = argparse.ArgumentParser(
        prog="python -m scripts.launch_tpu",
        description="Trains on a Cloud TPU slice. Flags of maskanim_jax.main follow behind --, such as -- --config=configs/taichi.py",
        allow_abbrev=False,
    )
    add = flags.add_argument
    add("--name", required=True, help="of the slice: lower-case letters, digits and -")
    add("--project", required=True, help="Google Cloud project")
    add("--zone", required=True, help="such as us-west4-a; one that has the type")
    add("--type", default="v5litepod-16", help="accelerator type (default %(default)s: v5e, 16 chips on 4 hosts)")
    add("--runtime", default="v2-alpha-tpuv5-lite", help="the hosts' image (default %(default)s, for v5e)")
    add("--spot", action="store_true", help="cheaper, and may be taken away at any time")
    add("--package", required=True, help="what pip installs: git+https://...@TAG, or a wheel's address")
    add("--data", required=True, metavar="gs://...", help="folder of shards on a bucket, copied to each host's disk")
    add(
        "--share",
        required=True,
        metavar="ADDRESS:/PATH",
        help="NFS share (Filestore) for the workdir: it outlives the slice",
    )
    add("--workdir", required=True, help="folder on the share, without a leading /")
    add("--results", type=Path, required=True, help="local folder to copy the workdir to")
    add("--restarts", type=int, default=20, help="new slices after preemptions (default %(default)s)")
    add("--keep", action="store_true", help="leave the slice when training ends; it goes on costing")
    add("--price", type=float, help="your price of a chip for an hour: prints what --hours would cost")
    add("--hours", type=float, help="hours that you expect")
    add("--dry_run", action="store_true", help="print every command and run none")
    add("flags", nargs="*", help="of maskanim_jax.main, behind --")
    return flags


def checked(args: argparse.Namespace) -> Slice:
    """What the flags ask for; raises UserError for what cannot be."""
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,60}[a-z0-9])?", args.name):
        raise UserError(
            f"--name={args.name} cannot be a slice's name: use lower-case letters, digits and -, a letter first"
        )
    for flag in ("project", "zone", "type", "runtime"):
        if not re.fullmatch(r"[a-z0-9][-a-z0-9.:]*", getattr(args, flag)):
            raise UserError(f"--{flag}={getattr(args, flag)} cannot be: use lower-case letters, digits and -")
    if not args.data.startswith("gs://"):
        raise UserError(f"--data={args.data} is no folder of a bucket: give gs://BUCKET/FOLDER")
    if ":/" not in args.share or args.share.startswith("-"):
        raise UserError(f"--share={args.share} is no NFS share: give ADDRESS:/PATH, as Filestore shows it")
    parts = Path(args.workdir).parts
    if not parts or args.workdir.startswith(("/", "~")) or ".." in parts or not args.workdir.isprintable():
        raise UserError(f"--workdir={args.workdir} cannot be: give a folder's name on the share, such as taichi-1")
    if args.package.startswith("-"):
        raise UserError(f"--package={args.package} cannot be: give git+https://...@TAG, or a wheel's address")
    if any(flag.startswith(("--workdir", "--config.data.shards")) for flag in args.flags):
        raise UserError(
            "--workdir and --config.data.shards are this command's own: give --workdir and --data before the --"
        )
    if args.restarts < 0:
        raise UserError(f"--restarts={args.restarts} cannot be: give 0 or more")
    fields = (field.name for field in dataclasses.fields(Slice))
    return Slice(**{name: getattr(args, name) for name in fields} | {"flags": tuple(args.flags)})


def cost(type: str, price: float, hours: float) -> str:
    """What so many hours of all chips of a v5e or v6e slice cost at `price` a chip and hour, in a sentence. Raises UserError."""
    found = re.fullmatch(r"(v5litepod|v6e)-(\d+)", type)
    if not found or not (math.isfinite(price * hours) and price >= 0 and hours >= 0):
        raise UserError(
            f"--price and --hours of --type={type} give no sum: of v5litepod-N and v6e-N the chips are known"
        )
    return f"{found[2]} chips for {hours:g} hours at {price:g} each: {int(found[2]) * hours * price:.2f}, disks not counted"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; raises UserError."""
    args = parser().parse_args(argv)
    wanted = checked(args)
    if args.price is not None or args.hours is not None:
        if args.price is None or args.hours is None:
            raise UserError("--price and --hours are given together")
        print(f"# {cost(args.type, args.price, args.hours)}")
    if args.dry_run:
        for what, command in wanted.commands():
            print(f"# {what}\n{shlex.join(command)}")
        return 0
    return launch(wanted, really, restarts=args.restarts, keep=args.keep)


if __name__ == "__main__":
    exit_with_sentence(main)
