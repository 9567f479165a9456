"""How do the processes of a run find each other?

All connect to process 0 first, so missing ones can be named.

JAX itself waits in C++ and aborts without naming the missing process. Process 0 listens on the port
that JAX uses afterwards, only on its own address. The connections stay open for peers.py. Only
processes that know the run's secret (secret.py) are accepted:

    process 0  {"maskanim": 2, "question": Q0}
    another    {"index": I, "count": N, "question": Q1,
                "answer": HMAC(secret, "process", Q0, Q1, N, I)}
    process 0  {"welcome": true, "answer": HMAC(secret, "welcome", Q1, Q0)} when all have joined,
               or {"refused": ..., "answer": ...}
"""

from __future__ import annotations

import contextlib
import json
import select
import selectors
import socket
import time
from typing import Any, NamedTuple

from maskanim_jax.distributed.secret import SECRET, answer, drawn, right, run_secret
from maskanim_jax.errors import UserError

VERSION = 2
"""Version of the protocol."""
MAX_LINE = 1 << 14
"""Size limit of a line in bytes; longer lines from unknown processes are not read."""
MAX_GUESTS = 256
"""Limit on unauthenticated connections; beyond it, the oldest is closed."""
ANSWER_S = 5.0
"""Time limit for process 0's question and for the answer, in seconds."""


def connect(
    host: str, port: int, count: int, index: int, timeout_s: float, secret: str | None = None
) -> dict[int, socket.socket]:
    """Connects all `count` processes: returns connections to all others in process
    0, to process 0 elsewhere.

    `secret` is the run's, by default `run_secret()`. Raises UserError after `timeout_s` seconds,
    naming the missing processes.
    """
    secret = run_secret() if secret is None else secret
    if index == 0:
        return receive(listen(host, port, timeout_s), count, timeout_s, secret)
    return {0: _go_to(host, port, count, index, timeout_s, secret)}


def listen(host: str, port: int, timeout_s: float = 0.0) -> list[socket.socket]:
    """Listens on all addresses of `host` on this machine, and no others; port 0: a
    free port, the same for all.

    Raises UserError for an address of another machine, or when the port is in use
    for `timeout_s` seconds.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise UserError(
            f"{host} is unknown ({error.strerror}): give the address at which others reach process 0"
        ) from error
    addresses = list(dict.fromkeys((family, address[0]) for family, _, _, _, address in found))
    until = time.monotonic() + timeout_s
    while True:
        servers: list[socket.socket] = []
        failed: OSError | None = None
        for family, address in addresses:
            try:
                there = servers[0].getsockname()[1] if servers else port
                servers.append(socket.create_server((address, there), family=family, backlog=1024))
            except OSError as error:  # a name may resolve to an unavailable address, such as IPv6's
                failed = failed or error
        if servers:
            return servers
        if time.monotonic() > until:
            assert failed is not None
            raise UserError(
                f"{host}:{port} cannot be listened on ({failed.strerror}): give an address of process 0's own machine, or "
                "another port, to all processes"
            ) from failed
        time.sleep(0.5)


class _Guest(NamedTuple):
    """A connection that has not answered yet."""

    connection: socket.socket
    question: str
    until: float
    said: bytearray


class _Member(NamedTuple):
    """A process of this run, and its question."""

    connection: socket.socket
    asked: str
    question: str


def receive(servers: list[socket.socket], count: int, timeout_s: float, secret: str) -> dict[int, socket.socket]:
    """Process 0's side: accepts processes that know the secret until all have
    joined; closes `servers`.

    Raises UserError after `timeout_s` seconds, naming the missing processes.
    """
    here: dict[int, _Member] = {}
    guests: dict[socket.socket, _Guest] = {}
    strangers = 0
    until = time.monotonic() + timeout_s
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for server in servers:
            stack.enter_context(server).setblocking(False)
            selector.register(server, selectors.EVENT_READ)

        def drop(guest: _Guest, close: bool = True) -> None:
            selector.unregister(guest.connection)
            del guests[guest.connection]
            if close:
                guest.connection.close()

        def close_guests() -> None:
            for guest in guests.values():
                guest.connection.close()

        stack.callback(close_guests)
        while len(here) < count - 1:
            if time.monotonic() > until:
                _give_up(here, count, timeout_s, secret, strangers)
            for key, _ in selector.select(0.5):
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                if connection in servers:
                    for oldest in list(guests.values())[: max(0, len(guests) - MAX_GUESTS + 1)]:
                        drop(oldest)
                    if (new := _ask(connection)) is not None:
                        guests[new.connection] = new
                        selector.register(new.connection, selectors.EVENT_READ)
                    continue
                guest = guests.get(connection)
                line = None if guest is None else _answered(guest)
                if guest is None or line is None:
                    continue
                known = _known(line, guest, secret)
                strangers += known is None
                drop(guest, close=known is None)
                if known is not None:
                    _admit(known, guest, here, count, secret)
            for late in [guest for guest in guests.values() if time.monotonic() > guest.until]:
                drop(late)
        for member in here.values():
            _say(
                member.connection, {"welcome": True, "answer": answer(secret, "welcome", member.asked, member.question)}
            )
    return {index: member.connection for index, member in here.items()}


def _ask(server: socket.socket) -> _Guest | None:
    """Accepts a connection and sends it the question; None if it is already closed."""
    with contextlib.suppress(OSError):
        connection, _ = server.accept()
        connection.setblocking(False)
        question = drawn()
        connection.send(json.dumps({"maskanim": VERSION, "question": question}).encode() + b"\n")
        return _Guest(connection, question, time.monotonic() + ANSWER_S, bytearray())
    return None


def _answered(guest: _Guest) -> bytes | None:
    """The guest's line; empty if there will be none, None while it may still arrive."""
    try:
        data = guest.connection.recv(MAX_LINE)
    except BlockingIOError:
        return None
    except OSError:
        return b""
    guest.said.extend(data)
    if data and not guest.said.endswith(b"\n") and len(guest.said) < MAX_LINE:
        return None
    return bytes(guest.said) if guest.said.endswith(b"\n") and len(guest.said) <= MAX_LINE else b""


def _known(line: bytes, guest: _Guest, secret: str) -> dict[str, Any] | None:
    """The message of an authenticated process; None for a stranger, who only learns
    that the answer is wrong.
    """
    said = _parsed(line)
    parts = () if said is None else (said.get("question"), said.get("count"), said.get("index"))
    if said is not None and right(said.get("answer"), secret, "process", guest.question, *map(str, parts)):
        return said
    _say(guest.connection, {"stranger": True})
    return None


def _admit(said: dict[str, Any], guest: _Guest, here: dict[int, _Member], count: int, secret: str) -> None:
    """Admits a process, or refuses it with a message."""
    guest.connection.setblocking(True)
    guest.connection.settimeout(ANSWER_S)
    member = _Member(guest.connection, str(said["question"]), guest.question)
    for number in [number for number, other in here.items() if _ended(other.connection)]:
        here.pop(number).connection.close()  # it may be the one that reconnects
    index = said["index"]
    if said["count"] != count:
        wrong = f"process {index} has another number of processes ({said['count']}) than process 0 ({count}): start all processes with the same"
    elif index not in range(1, count) or index in here:
        wrong = f"process {index} of this run already exists: give each process its own index"
    else:
        here[index] = member
        return
    _refuse([member], wrong, secret)


def _give_up(here: dict[int, _Member], count: int, timeout_s: float, secret: str, strangers: int) -> None:
    """Tells the processes that joined which ones are missing, and raises UserError."""
    missing = ", ".join(str(number) for number in range(1, count) if number not in here)
    others = (
        f" ({strangers} connections did not know the run's secret: {SECRET} must be the same in all)"
        if strangers
        else ""
    )
    message = (
        f"of {count} processes, these did not connect to process 0 within {timeout_s:.0f} s: {missing}{others}; "
        "start all of them, with the same address, and check their own errors"
    )
    _refuse(list(here.values()), message, secret)
    raise UserError(message)


def _go_to(host: str, port: int, count: int, index: int, timeout_s: float, secret: str) -> socket.socket:
    """The other processes' side: waits until process 0 reports that all have joined."""
    until, seen = time.monotonic() + timeout_s, "did not answer within {:.0f} s as process 0"
    while (left := until - time.monotonic()) > 0:
        connection: socket.socket | None = None
        try:
            connection = socket.create_connection((host, port), timeout=min(left, 10.0))
            asked = _line(connection, min(left, ANSWER_S))
            if asked is None or asked.get("maskanim") != VERSION or not isinstance(asked.get("question"), str):
                raise ConnectionError
            question = drawn()
            mine = answer(secret, "process", asked["question"], question, str(count), str(index))
            _say(connection, {"index": index, "count": count, "question": question, "answer": mine})
            # Process 0 may have started to wait later, and reports which processes are missing.
            said = _line(connection, left + timeout_s) or {}
        except OSError:
            if connection is not None:
                connection.close()
                seen = "answers, but not as process 0 of this run"
            time.sleep(0.3)
            continue
        if "welcome" in said and right(said.get("answer"), secret, "welcome", question, asked["question"]):
            return connection
        connection.close()
        if right(said.get("answer"), secret, "refused", question, str(said.get("refused"))):
            raise UserError(str(said["refused"]))
        seen = (
            f"is process 0 of a run with another secret: give the same {SECRET} to all processes, as they do not share a home folder"
            if said.get("stranger")
            else "answers, but not as process 0 of this run"
        )
        time.sleep(0.3)
    raise UserError(
        f"{host}:{port} {seen.format(timeout_s)}: start process 0 there, or correct the address of process {index}"
    )


def _line(connection: socket.socket, timeout_s: float) -> dict[str, Any] | None:
    """One JSON object, read byte by byte so that later data stays in the
    socket; None for anything else.
    """
    until, line = time.monotonic() + timeout_s, b""
    while len(line) < MAX_LINE and not line.endswith(b"\n"):
        connection.settimeout(max(0.01, until - time.monotonic()))
        try:
            byte = connection.recv(1)
        except OSError:
            return None
        if not byte:
            return None
        line += byte
    return _parsed(line)


def _parsed(line: bytes) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError, RecursionError):
        said = json.loads(line)
        return said if isinstance(said, dict) else None
    return None


def _say(connection: socket.socket, said: dict[str, Any]) -> None:
    """Sends a message; a closed connection is detected later."""
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(said).encode() + b"\n")


def _refuse(members: list[_Member], message: str, secret: str) -> None:
    for member in members:
        _say(member.connection, {"refused": message, "answer": answer(secret, "refused", member.asked, message)})
        member.connection.close()


def _ended(connection: socket.socket) -> bool:
    """Whether the other side has closed."""
    if not select.select([connection], [], [], 0)[0]:
        return False
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except OSError:
        return True
