"""How is a folder in a bucket locked for one training process? With an object that is created only
if absent, and a heartbeat.

`.lock/NUMBER` belongs to the process that created it; the highest number is the holder's.
After the holder has released the lock or is lost, only one process can create the next number.
The holder rewrites its object every HEARTBEAT_S seconds; after EXPIRY_S seconds without a
write it counts as lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from maskanim_jax.buckets.address import Address
from maskanim_jax.buckets.client import AlreadyExists, Bucket, Stored
from maskanim_jax.errors import UserError

HEARTBEAT_S = 15.0
EXPIRY_S = 60.0
POLL_S = 2.0
FOLDER = ".lock"


class RunLock:
    """The lock of one folder in a bucket; `acquire` it before writing there."""

    def __init__(self, bucket: Bucket, address: Address) -> None:
        self._bucket, self._address = bucket, address
        self._prefix = (address / FOLDER).prefix
        self._record = _this_process()
        self._name = ""
        self._lost = ""
        self._stop = threading.Event()
        self._beating = threading.Lock()

    def acquire(self) -> None:
        """Takes the lock, also from a lost process; raises UserError that names a live holder."""
        while True:
            held = self._latest()
            if held is not None and not self._is_abandoned(*held):
                raise UserError(
                    f"{self._address} is in use: {_words(held[2])} trains there; wait for its end or give another --workdir"
                )
            name = f"{self._prefix}{(int(held[0].rpartition('/')[2]) if held else 0) + 1:09d}"
            if not self._create(name):
                continue  # another process was faster
            self._name = name
            for older in self._bucket.list(self._prefix):
                if older < name:
                    self._bucket.delete(older)
            threading.Thread(target=self._keep_alive, name="bucket lock", daemon=True).start()
            return

    def _create(self, name: str) -> bool:
        try:
            self._bucket.upload(name, self._content(), if_absent=True)
        except AlreadyExists:  # perhaps created by a first attempt, whose answer was lost
            return (_parsed(self._bucket.read(name)) or {}).get("owner") == self._record["owner"]
        return True

    def check(self) -> None:
        """Raises UserError if another process has taken the lock over, for example
        while this one was suspended.
        """
        latest = self._latest()
        if latest is None or latest[0] != self._name:
            whom = _words(latest[2]) if latest else "no process"
            self._lost = f"{self._address} no longer belongs to this process: {whom} trains there; this one has saved nothing since"
        if self._lost:
            raise UserError(self._lost)

    def release(self) -> None:
        """Releases the lock; if that fails, it expires.

        The object stays, so that its number is not reused.
        """
        self._stop.set()
        if self._name and not self._lost:
            with self._beating, contextlib.suppress(UserError):
                self._bucket.upload(self._name, self._content(released=True))

    def _keep_alive(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            with contextlib.suppress(Exception):  # retried later; `check` asks the bucket directly
                if max(self._bucket.list(self._prefix), default="") > self._name:
                    self._lost = f"{self._address} was taken over by another process: this one has saved nothing since"
                    return
                with self._beating:
                    if not self._stop.is_set():
                        self._bucket.upload(self._name, self._content())

    def _latest(self) -> tuple[str, Stored, dict[str, Any]] | None:
        """Name, metadata and record of the holder's object."""
        while objects := self._bucket.list(self._prefix):
            name = max(objects)
            if (content := self._bucket.read(name)) is not None:
                return name, objects[name], _parsed(content) or {}
        return None

    def _is_abandoned(self, name: str, stored: Stored, record: dict[str, Any]) -> bool:
        """Whether the holder is lost: its process on this machine has ended, or it sends no
        heartbeat. May wait to find out.
        """
        if record.get("released") or _has_ended_here(record) or stored.age > EXPIRY_S:
            return True
        until = time.monotonic() + EXPIRY_S - max(stored.age, 0.0)
        print(
            f"{self._address} is locked by {_words(record)}: waiting up to {until - time.monotonic():.0f} s for its heartbeat",
            file=sys.stderr,
            flush=True,
        )
        while time.monotonic() < until:
            time.sleep(POLL_S)
            now = self._bucket.list(self._prefix)
            if name not in now:
                return False  # another process has taken it over
            if now[name].generation != stored.generation:  # a heartbeat, or the lock's release
                return bool((_parsed(self._bucket.read(name)) or {}).get("released"))
        return True

    def _content(self, released: bool = False) -> bytes:
        return json.dumps(self._record | {"beat": time.time(), "released": released}).encode()


def _this_process() -> dict[str, Any]:
    return {
        "owner": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "machine": _machine(),
        "started": _start_of(os.getpid()),
    }


def _machine() -> str | None:
    """Identifies one boot of one machine and its process namespace; None if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _start_of(pid: int) -> str | None:
    """When a process of this machine was started, since process numbers are reused; None if there
    is none, or only a zombie.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _has_ended_here(record: dict[str, Any]) -> bool:
    machine, pid = record.get("machine"), record.get("pid")
    if machine is None or machine != _machine() or type(pid) is not int:
        return False
    return _start_of(pid) != record.get("started")


def _parsed(content: bytes | None) -> dict[str, Any] | None:
    try:
        value = json.loads(content or b"")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _words(record: dict[str, Any]) -> str:
    if not record:
        return "an unknown process"
    return f"process {record.get('pid')} on {record.get('host')} (since {record.get('since')})"
