"""How do the processes of a run find each other? All connect to process 0 before JAX does, so that who is missing is named.

JAX itself waits for its processes in C++ and aborts when one is missing. Process 0 listens on the very port that JAX takes afterwards; the
connections stay, and peers.py watches over them.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from typing import Any

from maskanim_jax.errors import UserError

_LONGEST = 1 << 16  # bytes of a line


def meet(host: str, port: int, count: int, index: int, patience: float, run: str = "") -> dict[int, socket.socket]:
    """Connections to all others for process 0, to process 0 for the others, once all `count` processes are there.

    `run`: a word that all of them know, if there is one. Raises UserError after `patience` seconds, naming who did not come.
    """
    greeting = {"maskanim": 1, "count": count, "index": index, "run": run}
    if index == 0:
        return receive(listen(port, patience), count, patience, greeting)
    return {0: _go_to(host, port, greeting, patience)}


def listen(port: int, patience: float = 0.0) -> socket.socket:
    """A socket that listens on all addresses; raises UserError when the port stays taken for `patience` seconds."""
    until = time.monotonic() + patience
    dual = socket.has_dualstack_ipv6()
    while True:
        try:
            return socket.create_server(
                ("", port), family=socket.AF_INET6 if dual else socket.AF_INET, backlog=1024, dualstack_ipv6=dual
            )
        except OSError as error:
            if time.monotonic() > until:
                raise UserError(
                    f"port {port} cannot be listened on ({error.strerror}): give another port to all processes"
                ) from error
            time.sleep(0.5)


def receive(server: socket.socket, count: int, patience: float, mine: dict[str, Any]) -> dict[int, socket.socket]:
    """Process 0's side: waits for the greetings of all others, then tells them that all are there; closes `server`."""
    here: dict[int, socket.socket] = {}
    until = time.monotonic() + patience
    with server:
        server.settimeout(0.5)
        while len(here) < count - 1:
            if time.monotonic() > until:
                missing = ", ".join(str(number) for number in range(1, count) if number not in here)
                sentence = (
                    f"of {count} processes these did not come to process 0 within {patience:.0f} s: {missing}; "
                    "start all of them, with the same address, and look at their own errors"
                )
                _refuse(list(here.values()), sentence)
                raise UserError(sentence)
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            greeting = _line(connection, 5.0)
            for number in [number for number, connection in here.items() if _ended(connection)]:
                here.pop(number).close()  # it may be the one that comes again
            if greeting is None or "maskanim" not in greeting:
                connection.close()  # a stranger
                continue
            wrong = _wrong(greeting, mine, here)
            if wrong is None:
                here[greeting["index"]] = connection
            else:
                _refuse([connection], wrong)
        for connection in here.values():
            with contextlib.suppress(OSError):  # gone in this moment: the first look at the connection will tell
                connection.sendall(b'{"welcome": true}\n')
    return here


def _wrong(greeting: dict[str, Any], mine: dict[str, Any], here: dict[int, socket.socket]) -> str | None:
    """What keeps a process from this run."""
    number = greeting.get("index")
    for key, what in (("maskanim", "version of this program"), ("count", "number of processes"), ("run", "run")):
        if greeting.get(key) != mine[key]:
            return (
                f"process {number} has another {what} ({greeting.get(key)}) than process 0 ({mine[key]}): "
                "start all processes with the same"
            )
    if number not in range(1, mine["count"]) or number in here:
        return f"there is a process {number} of this run already: give each process an index of its own"
    return None


def _go_to(host: str, port: int, greeting: dict[str, Any], patience: float) -> socket.socket:
    """The other side: until process 0 has said that all are there."""
    until, answered = time.monotonic() + patience, False
    while (left := until - time.monotonic()) > 0:
        try:
            connection = socket.create_connection((host, port), timeout=min(left, 10.0))
            connection.sendall(json.dumps(greeting).encode() + b"\n")
            # Process 0 began to wait later than this one, and says who is missing.
            said = _line(connection, left + patience)
        except OSError:
            time.sleep(0.3)
            continue
        if said is not None and "refused" in said:
            raise UserError(str(said["refused"]))
        if said is not None and "welcome" in said:
            return connection
        connection.close()
        answered = True
        time.sleep(0.3)
    sentence = (
        "answers, but not as process 0 of this run"
        if answered
        else f"did not answer within {patience:.0f} s as process 0"
    )
    raise UserError(
        f"{host}:{port} {sentence}: start process 0 there, or correct the address of process {greeting['index']}"
    )


def _line(connection: socket.socket, patience: float) -> dict[str, Any] | None:
    """One JSON object, read byte by byte so that what follows stays in the connection; None for anything else."""
    until, line = time.monotonic() + patience, b""
    while len(line) < _LONGEST and not line.endswith(b"\n"):
        connection.settimeout(max(0.01, until - time.monotonic()))
        try:
            byte = connection.recv(1)
        except OSError:
            return None
        if not byte:
            return None
        line += byte
    with contextlib.suppress(ValueError):
        said = json.loads(line)
        return said if isinstance(said, dict) else None
    return None


def _refuse(connections: list[socket.socket], sentence: str) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.sendall(json.dumps({"refused": sentence}).encode() + b"\n")
        connection.close()


def _ended(connection: socket.socket) -> bool:
    """Whether the other side has closed."""
    if not select.select([connection], [], [], 0)[0]:
        return False
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except OSError:
        return True
