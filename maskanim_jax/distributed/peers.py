"""How does a process notice that another one of the run has died? Each sends
heartbeats to process 0.

Otherwise the others would hang in a collective: on an accelerator forever, elsewhere until
jaxlib aborts them. Process 0 forwards failures. If a process is lost (killed, preempted,
machine or network down), all others exit with status 75, "start me again"; if it ended with
an error, with its status.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NoReturn

from maskanim_jax import errors
from maskanim_jax.errors import RESTART, UserError, printable

HEARTBEAT_INTERVAL_S = 3.0
"""Seconds between heartbeats."""
HEARTBEAT_TIMEOUT_S = 40.0
"""Seconds without a heartbeat after which a process counts as lost, even
if its connection is open.
"""
SHUTDOWN_GRACE_S = 15.0
"""Seconds that a process has to exit by itself after another one failed:
usually it has the same error.
"""
BARRIER_TIMEOUT_S = 900.0
"""Seconds that the other processes may take to reach the same point of the program."""

MAX_MESSAGE = 16 << 20
"""Size limit of a message in bytes; the configs of all processes form one message."""

_current: Peers | None = None


def current() -> Peers | None:
    """This process's connections; None for a single process."""
    return _current


def start_watchdog(index: int, count: int, connections: Mapping[int, socket.socket]) -> Peers:
    """From now on this process ends if another one fails.

    `connections`: from process 0 to all others, from the others to process 0.
    """
    global _current
    _current = Peers(index, count, connections)
    _current.start()
    return _current


class Peers:
    """The other processes of a run with `count` processes, from one process's view."""

    def __init__(self, index: int, count: int, connections: Mapping[int, socket.socket]) -> None:
        self.index, self.count = index, count
        self._open = dict(connections)
        self._from = {number: _address(connection) for number, connection in self._open.items()}
        self._last_seen = dict.fromkeys(self._open, time.monotonic())
        self._unread = dict.fromkeys(self._open, b"")
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._given: dict[int, dict[int, Any]] = {}  # values by round and process
        self._answers: dict[int, list[Any]] = {}
        self._round = 0
        self._left = self._ending = self._crashed = False
        self._failure: tuple[int, str, float] | None = None  # status, message, latest time to end

    def start(self) -> None:
        """Starts to listen in a thread, and to watch for this process's own end."""
        for connection in self._open.values():
            # For sending: a process that reads nothing for this long is lost.
            connection.settimeout(HEARTBEAT_TIMEOUT_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _delay_abort()
        threading.Thread(target=self._listen, name="hosts", daemon=True).start()
        errors.EXIT_HOOKS.append(self.failed)
        before = sys.excepthook

        def crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
            self._crashed = True
            before(kind, error, trace)

        sys.excepthook = crashed
        atexit.register(self._leave)  # before JAX's handler, which would wait for the others for minutes

    # -- called by the main thread ------------------------------------------------------------------------------------------------

    def gather(self, value: Any) -> list[Any]:
        """Gathers the value (JSON) of each process, by index; all processes must
        call it, in the same order.

        Raises UserError if one does not arrive within BARRIER_TIMEOUT_S seconds; if one fails
        meanwhile, this one ends.
        """
        number = self._round
        self._round += 1
        self._give(number, value)
        with self._changed:
            if not self._changed.wait_for(lambda: number in self._answers, BARRIER_TIMEOUT_S):
                raise UserError(
                    f"the other processes did not reach the same point within {BARRIER_TIMEOUT_S / 60:.0f} minutes: "
                    "start the same command in all of them"
                )
            return self._answers.pop(number)

    def failed(self, status: int, message: str) -> NoReturn:
        """Exits with this process's error after telling the others; if a lost process
        caused it, with that message.
        """
        stopped = status == RESTART  # all processes were told to stop
        with self._changed:  # the connection shows a lost process slightly before a collective does
            self._changed.wait_for(lambda: stopped or self._failure is not None, 2.0)
            self._ending, failure = True, self._failure
        if failure is None or status != 1:
            _say(message)
        if stopped:
            self._tell({"failed": self.index, "status": status, "sentence": "it was told to stop"})
        elif failure is not None:
            _print_final(failure[1])
            status = failure[0] if status == 1 else status
        else:
            first = message.strip().splitlines()[-1] if message.strip() else f"status {status}"
            self._tell({"failed": self.index, "status": status, "sentence": first})
        self._exit(status, SHUTDOWN_GRACE_S + 5)

    def _leave(self) -> None:
        """At exit: waits until the others have finished too."""
        if self._crashed:
            self.failed(1, "")
        self._give(-1, None)
        with self._changed:
            self._changed.wait_for(lambda: self._left)

    def _give(self, number: int, value: Any) -> None:
        if self.index:
            self._tell({"round": number, "value": value})
        else:
            self._collect(number, 0, json.loads(json.dumps(value)))  # wakes up when other values arrive

    # -- called by the listening thread --------------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        selector, beaten = selectors.DefaultSelector(), 0.0
        for number, connection in self._open.items():
            selector.register(connection, selectors.EVENT_READ, number)
        while True:
            for key, _ in selector.select(HEARTBEAT_INTERVAL_S / 3):
                if not self._read(key.data):
                    selector.unregister(key.fileobj)
                    self._closed(key.data, "its connection closed")
            now = time.monotonic()
            if now - beaten > HEARTBEAT_INTERVAL_S:
                beaten = now
                self._tell({})
            for number in [number for number in self._open if now - self._last_seen[number] > HEARTBEAT_TIMEOUT_S]:
                selector.unregister(self._open[number])
                self._closed(number, f"it sent no heartbeat for {HEARTBEAT_TIMEOUT_S:.0f} s")
            if self._failure is not None and now > self._failure[2] and not self._ending:
                self._ending = True
                _print_final(self._failure[1])
                self._exit(self._failure[0], 3.0)

    def _read(self, number: int) -> bool:
        """Reads what a connection has received; False when it is closed."""
        try:
            data = self._open[number].recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            return False
        self._last_seen[number] = time.monotonic()
        *lines, self._unread[number] = (self._unread[number] + data).split(b"\n")
        if len(self._unread[number]) > MAX_MESSAGE:
            return False
        try:
            for line in lines:
                self._take(number, json.loads(line))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # not a message of this program
            return False
        return True

    def _take(self, number: int, said: dict[str, Any]) -> None:
        if "round" in said:
            if self.index:
                self._answer(said["round"], said["value"])
            else:
                self._collect(said["round"], number, said["value"])
        elif "failed" in said:
            others = f"process {said['failed']} of {self.count} ended with an error: {said['sentence']}"
            self._record_failure(said["status"], others, SHUTDOWN_GRACE_S, said)
        elif "lost" in said:
            self._record_failure(RESTART, said["lost"], 0.0, said)

    def _collect(self, number: int, of: int, value: Any) -> None:
        with self._changed:
            given = self._given.setdefault(number, {})
            given[of] = value
            if len(given) < self.count:
                return
            values = [given[index] for index in range(self.count)]
            del self._given[number]
        self._tell({"round": number, "value": values})
        self._answer(number, values)

    def _answer(self, number: int, values: list[Any]) -> None:
        with self._changed:
            if number < 0:
                self._left = True
            else:
                self._answers[number] = values
            self._changed.notify_all()

    def _closed(self, number: int, how: str) -> None:
        with self._changed:
            self._open.pop(number).close()
            self._changed.notify_all()
        if not (self._left or self._ending):
            lost = (
                f"process {number} of {self.count} ({self._from[number]}) is lost: {how}; perhaps it was killed or its machine is gone. "
                "Start all processes again: the run resumes from its newest checkpoint"
            )
            self._record_failure(RESTART, lost, 0.0, {"lost": lost})

    def _record_failure(self, status: int, message: str, grace: float, said: dict[str, Any]) -> None:
        """Records the first failure; later ones are its consequences."""
        with self._changed:
            if self._failure is not None or self._left:
                return
            self._failure = status, f"error: {message}", time.monotonic() + grace
            self._changed.notify_all()
        if self.index == 0:
            self._tell(said)

    # -- sending and exiting ------------------------------------------------------------------------------------------------------------

    def _tell(self, said: dict[str, Any]) -> None:
        """Sends to all connections; the thread detects broken ones."""
        line = json.dumps(said).encode() + b"\n"
        with self._sending:
            for connection in list(self._open.values()):
                with contextlib.suppress(OSError):
                    connection.sendall(line)

    def _exit(self, status: int, longest: float) -> NoReturn:
        """Exits at once, whatever other threads do.

        Process 0 exits last: jaxlib aborts the others when it is gone.
        """
        end = time.monotonic() + (longest if self.index == 0 else 0)
        while self._open and time.monotonic() < end:
            if threading.current_thread().name == "hosts":
                for number in [number for number in self._open if not self._read_quietly(number)]:
                    self._open.pop(number).close()
            time.sleep(0.05)
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(status)

    def _read_quietly(self, number: int) -> bool:
        """Whether the connection is still open; its data no longer matters."""
        connection = self._open[number]
        try:
            connection.setblocking(False)
            return bool(connection.recv(1 << 16))
        except BlockingIOError:
            return True
        except OSError:
            return False


def _say(text: str, stderr: int = 2) -> None:
    """Writes to stderr without its lock, which a hanging thread may hold."""
    if text.strip():
        shown = "\n".join(printable(line) for line in text.strip().splitlines())
        os.write(stderr, f"\n{shown}\n".encode("utf-8", "backslashreplace"))


def _print_final(text: str) -> None:
    """Prints the last message and silences stderr, so that jaxlib's own errors do not follow it."""
    with _last_word:  # shared by the main and the listening thread
        stderr = None
        with contextlib.suppress(OSError):
            stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
        _say(text, 2 if stderr is None else stderr)


_last_word = threading.Lock()


def _address(connection: socket.socket) -> str:
    try:
        return str(connection.getpeername()[0]).removeprefix("::ffff:")
    except OSError:
        return "?"


def _delay_abort() -> None:
    """Delays jaxlib's abort, from C++, of a process that has lost process 0, so that it
    can exit with a message.

    C's `sleep` becomes the handler of SIGABRT: called with the signal's number,
    it sleeps for 6 seconds.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
        libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))
