"""Does the rendezvous reject connections without the run's secret, whatever they send and however long they wait?"""

import json
import socket
import stat
import sys
import threading
import time

import pytest

from maskanim_jax.distributed import peers, rendezvous, secret
from maskanim_jax.distributed.rendezvous import connect, listen, receive
from maskanim_jax.errors import UserError

SECRET = "the secret of this run"


class Meeting:
    """Process 0 of `count`, listening on localhost in a thread; `found` is its result or error message."""

    def __init__(self, count, patience=10.0):
        self.servers = listen("localhost", 0)
        self.port = self.servers[0].getsockname()[1]
        self.thread = threading.Thread(target=self._run, args=(count, patience))
        self.thread.start()

    def _run(self, count, patience):
        try:
            self.found = receive(self.servers, count, patience, SECRET)
        except UserError as error:
            self.found = str(error)

    def stranger(self):
        """A connection that has received its challenge."""
        connection = socket.create_connection(("localhost", self.port), timeout=10)
        return connection, json.loads(connection.makefile().readline())["question"]

    def end(self):
        """What process 0 found."""
        self.thread.join(30)
        assert not self.thread.is_alive()
        if isinstance(self.found, str):
            return self.found
        for connection in self.found.values():
            connection.close()
        return sorted(self.found)


def said(question, key=SECRET, count=2, index=1):
    mine = secret.answer(key, "process", question, "mine", str(count), str(index))
    return json.dumps({"index": index, "count": count, "question": "mine", "answer": mine}).encode() + b"\n"


def send_endlessly(connection):
    for _ in range(1000):
        connection.sendall(b"x" * rendezvous.MAX_LINE)


def closed(connection):
    """Everything that comes until the other side closes."""
    connection.settimeout(10)
    heard = b""
    while data := connection.recv(1 << 16):
        heard += data
    return heard


STRANGERS = {
    "another secret": lambda question: said(question, "another secret, also long"),
    "an answer to another question": lambda question: said("0" * 64),
    "another index than was answered for": lambda question: said(question).replace(b'"index": 1', b'"index": 0'),
    "no answer": lambda question: b'{"index": 1, "count": 2, "question": "mine"}\n',
    "an answer that is none": lambda question: b'{"index": [1], "count": {}, "question": 0, "answer": ["a"]}\n',
    "http": lambda question: b"GET / HTTP/1.1\n",
    "no object": lambda question: b"[]\n",
    "no text": lambda question: b"\xff\n",
    "deep": lambda question: b"[" * 10000 + b"\n",
}


def test_every_stranger_is_sent_away_and_the_run_begins():
    meeting = Meeting(2)
    for name, says in STRANGERS.items():
        connection, question = meeting.stranger()
        connection.sendall(says(question))
        assert closed(connection) == b'{"stranger": true}\n', name
        connection.close()
    other = connect("localhost", meeting.port, 2, 1, 10.0, SECRET)
    assert meeting.end() == [1]
    other[0].close()


def test_strangers_who_say_nothing_or_never_stop_hold_nobody_up(monkeypatch):
    monkeypatch.setattr(rendezvous, "MAX_GUESTS", 8)
    monkeypatch.setattr(rendezvous, "ANSWER_S", 60.0)
    meeting = Meeting(2)
    silent = [meeting.stranger()[0] for _ in range(20)]
    endless, _ = meeting.stranger()
    with pytest.raises(ConnectionError):  # closed while it writes
        send_endlessly(endless)
    began = time.monotonic()
    other = connect("localhost", meeting.port, 2, 1, 10.0, SECRET)
    assert meeting.end() == [1]
    assert time.monotonic() - began < 10  # returned without waiting for the 60 s
    for connection in (*silent, endless, other[0]):
        connection.close()


def test_processes_with_other_secrets_hear_what_to_do():
    meeting = Meeting(2, 2.0)
    with pytest.raises(UserError, match=r"with another secret: give the same MASKANIM_DISTRIBUTED_SECRET to all"):
        connect("localhost", meeting.port, 2, 1, 1.0, "another secret, also long")
    assert "did not know the run's secret: MASKANIM_DISTRIBUTED_SECRET must be the same in all" in meeting.end()


def test_nobody_passes_for_process_zero():
    """An impostor sends a challenge and welcomes or refuses, but cannot prove that it knows the secret."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(5)

    def pretend():
        answers = [{"welcome": True}, {"welcome": True, "answer": "0" * 64}, {"refused": "go away", "answer": "0" * 64}]
        for number in range(1000):
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connection.sendall(json.dumps({"maskanim": rendezvous.VERSION, "question": "q"}).encode() + b"\n")
            connection.makefile().readline()
            connection.sendall(json.dumps(answers[number % 3]).encode() + b"\n")
            connection.close()

    thread = threading.Thread(target=pretend, daemon=True)
    thread.start()
    with pytest.raises(UserError, match=r"answers, but not as process 0 of this run"):
        connect("127.0.0.1", server.getsockname()[1], 2, 1, 2.0, SECRET)
    server.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one loopback address")
def test_it_listens_at_the_given_address_and_no_other():
    servers = listen("127.0.0.1", 0)
    port = servers[0].getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5)
    for server in servers:
        server.close()
    with pytest.raises(UserError, match=r"give an address of process 0's own machine"):
        listen("192.0.2.1", 0)  # an address for documentation, which no machine has


def test_a_member_that_sends_no_message_is_lost(monkeypatch):
    monkeypatch.setattr(peers, "MAX_MESSAGE", 1 << 17)
    for bad in (b"x" * (1 << 19), b"no json\n", b'{"round": {}}\n', b"1\n"):
        with socket.create_server(("127.0.0.1", 0)) as server:
            theirs = socket.create_connection(server.getsockname())
            ours, _ = server.accept()
        watching = peers.Peers(0, 2, {1: ours})
        writer = threading.Thread(target=theirs.sendall, args=(bad,))
        writer.start()
        ours.settimeout(10)
        results = [watching._read(1) for _ in range(1 if bad.endswith(b"\n") else 4)]
        assert False in results, bad[:20]
        ours.close()
        writer.join(10)
        theirs.close()


def test_a_users_secret_is_made_once_and_readable_for_nobody_else(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(secret.SECRET, raising=False)
    made = secret.run_secret()
    path = tmp_path / "maskanim_jax/distributed_secret"
    assert len(made) == 64
    assert secret.run_secret() == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    path.chmod(0o644)
    with pytest.raises(UserError, match=r"is not a secret that only this user can read: delete it"):
        secret.run_secret()


def test_a_secret_from_the_environment_must_be_long(monkeypatch):
    monkeypatch.setenv(secret.SECRET, SECRET)
    assert secret.run_secret() == SECRET
    monkeypatch.setenv(secret.SECRET, "short")
    with pytest.raises(UserError, match=r"must have at least 16 characters: create one with `openssl rand -hex 32`"):
        secret.run_secret()
