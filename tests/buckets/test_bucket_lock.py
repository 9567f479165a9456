"""Does one process at a time train in a folder of a bucket?"""

import json
import os
import subprocess
import sys
import threading
import time

import pytest
from gcs_server import BUCKET

from maskanim_jax.buckets import lock
from maskanim_jax.buckets.address import Address
from maskanim_jax.buckets.client import Bucket
from maskanim_jax.buckets.lock import RunLock
from maskanim_jax.errors import UserError


@pytest.fixture
def locks(gcs, monkeypatch, request):
    """A function that makes locks of one folder."""
    for name, seconds in (("HEARTBEAT_S", 0.1), ("EXPIRY_S", 2.0), ("POLL_S", 0.05)):
        monkeypatch.setattr(lock, name, seconds)
    address = Address(BUCKET, f"lock/{request.node.name}")
    made = []

    def make():
        made.append(RunLock(Bucket(BUCKET), address))
        return made[-1]

    make.prefix, make.server = f"{address.folder}/.lock/", gcs[0]
    yield make
    for each in made:
        each.release()


def of_other_machine(lock, **changed):
    lock._record |= {"machine": "another", "host": "far away", **changed}
    return lock


@pytest.mark.subprocess
def test_a_second_one_is_refused_and_told_who_holds_it(locks):
    locks().acquire()
    with pytest.raises(UserError, match=rf"is in use: process {os.getpid()} on .* trains there; wait .* --workdir"):
        locks().acquire()


@pytest.mark.subprocess
def test_a_released_one_is_taken_at_once_and_its_number_is_not_used_again(locks):
    first, second = locks(), locks()
    first.acquire()
    first.release()
    second.acquire()
    second.check()
    assert locks.server.names(locks.prefix) == ["000000002"]


@pytest.mark.subprocess
def test_that_of_a_process_that_was_killed_here_is_taken_at_once(locks, monkeypatch):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    killed = locks()
    killed._record |= {"pid": process.pid, "started": lock._start_of(process.pid)}
    killed.acquire()
    killed._stop.set()  # no heartbeat any more
    monkeypatch.setattr(lock, "EXPIRY_S", 1e6)
    waiting = threading.Thread(target=lambda: process.communicate(b"\n"))
    waiting.start()
    waiting.join()
    locks().acquire()


@pytest.mark.subprocess
def test_that_of_a_machine_that_is_lost_expires(locks):
    lost = of_other_machine(locks())
    lost.acquire()
    lost._stop.set()
    taker = locks()
    taker.acquire()
    taker.check()
    with pytest.raises(UserError, match=r"no longer belongs to this process: process \d+ on .* trains there"):
        lost.check()


@pytest.mark.subprocess
def test_a_sign_of_life_from_far_away_is_believed(locks):
    of_other_machine(locks()).acquire()
    with pytest.raises(UserError, match=r"on far away .* trains there"):
        locks().acquire()


@pytest.mark.subprocess
def test_of_many_that_come_at_once_one_gets_it(locks):
    won, contenders = [], [locks() for _ in range(6)]

    def contend(each):
        try:
            each.acquire()
            won.append(each)
        except UserError:
            pass

    threads = [threading.Thread(target=contend, args=(each,)) for each in contenders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    won[0].check()


@pytest.mark.subprocess
def test_an_answer_that_was_lost_does_not_lock_out_who_wrote_it(locks, gcs):
    server, _ = gcs
    one = locks()
    server.write(f"{locks.prefix}000000001", json.dumps(one._record).encode())  # the first of two tries
    assert one._create(f"{locks.prefix}000000001")
    assert not locks()._create(f"{locks.prefix}000000001")


@pytest.mark.subprocess
def test_one_that_was_taken_over_notices(locks):
    slow = of_other_machine(locks())
    slow.acquire()
    locks.server.write(f"{locks.prefix}000000002", b"{}")
    until = time.monotonic() + 30
    while not slow._lost and time.monotonic() < until:
        time.sleep(0.02)
    with pytest.raises(UserError, match="an unknown process trains there"):
        slow.check()
