"""Do several processes train like one, and if one ends, do the others end with a message?"""

import json
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from processes import EIGHT_STEPS, ROUNDING, Processes, free_port, losses, state_at
from tiny import tiny_config

from input_pipeline import from_config
from input_pipeline.from_config import ensure_shards
from input_pipeline.pairs import PairStream
from input_pipeline.shards import open_split
from maskanim_jax.distributed.rendezvous import connect
from maskanim_jax.distributed.secret import answer, run_secret
from maskanim_jax.distributed.setup import configure_jax
from maskanim_jax.errors import UserError
from maskanim_jax.training import consistency
from maskanim_jax.training.consistency import check_shared, refuse_differences

# -- training --------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tiny_shards, tmp_path_factory):
    """The workdir of eight steps by one process on four devices."""
    workdir = tmp_path_factory.mktemp("alone")
    with Processes(1, tiny_shards, workdir, *EIGHT_STEPS, "num_cpu_devices=4") as one:
        status, said = one.ends()[0]
    assert status == 0, said[-3000:]
    return workdir


@pytest.mark.subprocess
@pytest.mark.parametrize(("before", "victim", "after"), [(2, 0, 1), (4, 2, 2)])
def test_a_lost_process_ends_the_others_and_fewer_go_on_to_the_result_of_one(
    tiny_shards, alone, tmp_path, before, victim, after
):
    """The victim, process 0 among them, is killed while the others wait for it in a step."""
    with Processes(before, tiny_shards, tmp_path, *EIGHT_STEPS, f"hold=6,{victim}") as run:
        run.until(lambda: (tmp_path / "checkpoints" / "4").exists() and 5 in losses(tmp_path))
        run.started[victim].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        ends = run.ends()
        assert time.monotonic() - killed < 60  # the promised limit; a hang would take ten minutes
    for index, (status, said) in enumerate(ends):
        if index != victim:
            assert status == 75, said[-3000:]
            assert f"process {victim} of {before} (127.0.0.1) is lost" in said.replace("(::1)", "(127.0.0.1)")
            assert said.rstrip().endswith("the run resumes from its newest checkpoint")
    np.testing.assert_allclose(state_at(tmp_path, 4), state_at(alone, 4), **ROUNDING)
    with Processes(after, tiny_shards, tmp_path, *EIGHT_STEPS) as resumed:
        for status, said in resumed.ends():
            assert status == 0, said[-3000:]
    np.testing.assert_allclose(state_at(tmp_path, 8), state_at(alone, 8), **ROUNDING)
    found, expected = losses(tmp_path), losses(alone)
    assert list(found) == list(expected) == list(range(1, 9))
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=ROUNDING["rtol"])


TWO_AT_THE_END = """
import os, threading
from maskanim_jax.distributed import peers as hosts

def end(meeting):
    meeting.wait()
    hosts._print_final("the sentence")
    os.write(2, b"a line of some other thread")
    os._exit(75)

for _ in range(20):
    out, into = os.pipe()
    child = os.fork()  # the package is imported once
    if child == 0:
        os.dup2(into, 2)
        meeting = threading.Barrier(2)
        threading.Thread(target=end, args=(meeting,)).start()
        end(meeting)
    os.close(into)
    with os.fdopen(out) as said:
        text = said.read()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text.strip())
"""


@pytest.mark.subprocess
def test_of_two_threads_at_the_end_one_says_it_and_nothing_comes_after():
    done = subprocess.run([sys.executable, "-c", TWO_AT_THE_END], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["75 the sentence"] * 20


@pytest.mark.subprocess
def test_processes_with_different_commands_do_not_start(tiny_shards, tmp_path):
    with Processes(2, tiny_shards, tmp_path / "run", of_last=["seed=1"]) as run:
        for status, said in run.ends():
            assert status == 2, said[-3000:]
            assert "error: the processes differ: config.seed is 1 in process 1 and 0 in process 0" in said
    assert not (tmp_path / "run").exists()


def test_a_number_of_processes_that_the_batch_cannot_be_shared_by_is_refused(tiny_shards):
    with pytest.raises(UserError, match=r"batch_size=8 must be a multiple of the number of processes, 3"):
        PairStream(open_split(tiny_shards, "train"), batch_size=8, seed=0, repeats=4, process_count=3)


def test_puppets_are_drawn_by_process_zero_alone(tmp_path, monkeypatch):
    config = tiny_config(tmp_path / "shards")
    drawn = threading.Timer(0.5, (tmp_path / "shards").mkdir)
    drawn.start()
    assert ensure_shards(config, process=1) == tmp_path / "shards"
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]  # no videos
    monkeypatch.setattr(from_config, "DRAWING_TIMEOUT_S", 0.0)
    with pytest.raises(UserError, match=r"did not appear within .* on a disk that all processes share"):
        ensure_shards(tiny_config(tmp_path / "other"), process=1)


# -- agreement -------------------------------------------------------------------------------------------------------------------------


def test_what_differs_is_named_with_both_values():
    offer = {"config.seed": 0, "the data's data_fingerprint": "a", "the version of jax": "0.10.2"}
    refuse_differences([offer, dict(offer), dict(offer)])
    with pytest.raises(UserError, match=r"fingerprint is b in process 2 and a in process 0; start all of them"):
        refuse_differences([offer, offer, offer | {"the data's data_fingerprint": "b"}])
    with pytest.raises(UserError, match=r"config\.name is x in process 1 and None in process 0"):
        refuse_differences([offer, offer | {"config.name": "x"}])


def test_processes_that_jax_alone_brought_together_are_compared_by_a_hash(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    agreed = []

    def gather(mine):
        agreed.append(mine)
        return np.stack([agreed[0], mine])

    monkeypatch.setattr("jax.experimental.multihost_utils.process_allgather", gather)
    consistency.check_processes_agree(tiny_config(), {"data_fingerprint": "a"}, workdir="run")
    consistency.check_processes_agree(tiny_config(), {"data_fingerprint": "a"}, workdir="run")
    with pytest.raises(UserError, match=r"of process 1 differ from those of process 0"):
        consistency.check_processes_agree(tiny_config(), {"data_fingerprint": "b"}, workdir="run")


@pytest.mark.parametrize("theirs", [[False, []], [True, ["4"]]])
def test_a_workdir_that_another_process_does_not_share_is_refused(tmp_path, monkeypatch, theirs):
    class Two:
        index = 0

        def gather(self, value):
            return [value, theirs]

    monkeypatch.setattr(consistency.hosts, "current", Two)
    with pytest.raises(UserError, match=r"of process 1 is not the folder of process 0: give a --workdir on a disk"):
        check_shared(tmp_path)
    assert not list(tmp_path.iterdir())


# -- meeting ---------------------------------------------------------------------------------------------------------------------------


def meeting(port, *arguments):
    """The concurrent results of the rendezvous of each (count, index): connections or an error message."""
    found = {}

    def come(count, index, at):
        try:
            found[at] = connect("localhost", port, count, index, 2.0)
        except UserError as error:
            found[at] = str(error)

    threads = [threading.Thread(target=come, args=(*pair, at)) for at, pair in enumerate(arguments)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for connections in found.values():
        for connection in connections.values() if isinstance(connections, dict) else ():
            connection.close()
    return [found[at] if isinstance(found[at], str) else sorted(found[at]) for at in range(len(arguments))]


def test_all_processes_meet_whoever_comes_first():
    assert meeting(free_port(), (3, 2), (3, 1), (3, 0)) == [[0], [0], [1, 2]]


def test_who_does_not_come_is_named_to_all():
    found = meeting(free_port(), (4, 0), (4, 2))
    assert all("of 4 processes, these did not connect to process 0 within 2 s: 1, 3" in each for each in found)


def test_process_zero_that_does_not_come_is_named_by_its_address():
    port = free_port()
    assert meeting(port, (2, 1)) == [
        f"localhost:{port} did not answer within 2 s as process 0: start process 0 there, or correct the address of process 1"
    ]


def test_a_second_process_of_the_same_index_and_one_of_another_run_are_turned_away():
    first, same, other = meeting(free_port(), (2, 0), (2, 0), (3, 1))
    assert "process 1 has another number of processes (3) than process 0 (2)" in other
    assert "these did not connect" in first or "these did not connect" in same
    found = meeting(free_port(), (3, 0), (3, 1), (3, 1))
    assert "of 3 processes, these did not connect" in found[0]
    assert any("process 1 of this run already exists" in each for each in found[1:])


def test_a_process_that_died_while_it_waited_may_come_again():
    port, found = free_port(), {}
    zero = threading.Thread(target=lambda: found.update(zero=connect("localhost", port, 3, 0, 20.0)))
    zero.start()
    _known(port, 3, 1).close()
    others = [
        threading.Thread(target=lambda i=i: found.update({i: connect("localhost", port, 3, i, 20.0)})) for i in (1, 2)
    ]
    for thread in others:
        thread.start()
    for thread in [*others, zero]:
        thread.join(30)
    assert {name: sorted(connections) for name, connections in found.items()} == {"zero": [1, 2], 1: [0], 2: [0]}
    for connections in found.values():
        for connection in connections.values():
            connection.close()


def _known(port, count, index):
    """An authenticated connection, like that of a process of this user's run."""
    for _ in range(100):
        try:
            connection = socket.create_connection(("localhost", port), timeout=5)
        except OSError:
            time.sleep(0.02)
            continue
        question = json.loads(connection.makefile().readline())["question"]
        mine = answer(run_secret(), "process", question, "mine", str(count), str(index))
        said = {"index": index, "count": count, "question": "mine", "answer": mine}
        connection.sendall(json.dumps(said).encode() + b"\n")
        return connection


@pytest.mark.parametrize("value", ["localhost:1,2", "localhost:0,2,0", "localhost:1,0,0", ":1,2,0"])
def test_an_address_that_cannot_be_is_a_sentence(monkeypatch, value):
    monkeypatch.setenv("MASKANIM_DISTRIBUTED", value)
    with pytest.raises(UserError, match=r"give ADDRESS:PORT,COUNT,INDEX"):
        configure_jax(tiny_config())


def test_a_time_to_wait_that_cannot_be_is_a_sentence(monkeypatch):
    monkeypatch.setenv("MASKANIM_DISTRIBUTED", "localhost:1234,2,0")
    for value in ("0", "soon", "nan"):
        monkeypatch.setenv("MASKANIM_DISTRIBUTED_WAIT", value)
        with pytest.raises(UserError, match=f"MASKANIM_DISTRIBUTED_WAIT={value} must be a number of seconds from 1 to"):
            configure_jax(tiny_config())


# -- watching --------------------------------------------------------------------------------------------------------------------------

WATCHED = """
import sys, time
from maskanim_jax.distributed import peers as hosts
from maskanim_jax.errors import UserError, run_main
from maskanim_jax.distributed.rendezvous import connect
hosts.HEARTBEAT_INTERVAL_S, hosts.HEARTBEAT_TIMEOUT_S, hosts.SHUTDOWN_GRACE_S = 0.3, 3.0, 2.0
port, count, index, role = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
def main():
    peers = hosts.start_watchdog(index, count, connect("localhost", port, count, index, 60))
    assert peers.gather({"index": index, "pair": (1, 2)}) == [{"index": i, "pair": [1, 2]} for i in range(count)]
    if role == "user error":
        raise UserError("DIR is not there: give another")
    if role == "defect":
        raise ValueError("a defect")
    if role == "late":
        time.sleep(4)
    if role == "told to stop":
        sys.exit(75)
    if role == "waits":
        print("waiting", flush=True)
        time.sleep(120)
run_main(main)
"""


def watched(*roles, also=None):
    """(status, stderr) of a process for each role; they have no JAX and start fast. `also` gets the processes once all wait."""
    port = free_port()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WATCHED, str(port), str(len(roles)), str(index), role],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, role in enumerate(roles)
    ]
    try:
        if also is not None:
            for process in started:
                assert process.stdout.readline() == "waiting\n"
            also(started)
        return [(process.returncode, said) for process in started for said in [process.communicate(timeout=60)[1]]]
    finally:
        for process in started:
            process.kill()


@pytest.mark.subprocess
def test_processes_that_end_well_wait_for_each_other():
    assert watched("ends", "late", "ends") == [(0, "")] * 3


@pytest.mark.subprocess
@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_error_of_one_ends_the_others_with_its_sentence_and_status(at):
    roles = ["waits"] * 3
    roles[at] = "user error"
    for index, (status, said) in enumerate(watched(*roles)):
        sentence = "error: DIR is not there: give another"
        assert (status, said.strip()) == (
            2,
            sentence if index == at else f"error: process {at} of 3 ended with an error: {sentence}",
        )


@pytest.mark.subprocess
def test_a_defect_of_one_has_its_traceback_there_and_a_line_elsewhere():
    (first, here), (second, there) = watched("waits", "defect")
    assert (first, second) == (1, 1)
    assert "Traceback" in there
    assert here.strip() == "error: process 1 of 2 ended with an error: ValueError: a defect"


@pytest.mark.subprocess
def test_processes_that_have_the_same_error_say_it_once_each():
    for status, said in watched("user error", "user error"):
        assert status == 2
        assert said.count("error: DIR is not there: give another\n") >= 1


@pytest.mark.subprocess
def test_processes_that_were_told_to_stop_say_so_by_their_status():
    assert watched("told to stop", "told to stop", "told to stop") == [(75, "")] * 3


@pytest.mark.subprocess
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_stands_still_is_lost(victim):
    """As if its machine or the network failed: its connections stay open, but are silent."""

    def stop(started):
        started[victim].send_signal(signal.SIGSTOP)
        for index, process in enumerate(started):
            if index != victim:
                process.wait(60)
        started[victim].kill()

    ends = watched("waits", "waits", "waits", also=stop)
    for index, (status, said) in enumerate(ends):
        if index != victim:
            assert status == 75
            assert f"process {victim} of 3" in said
            assert "is lost: it sent no heartbeat for 3 s" in said
