"""Does a run that is killed and stopped again and again equal an undisturbed run? A short soak; `make soak` is the long one."""

import random
import shutil
import signal
import subprocess
import sys

import pytest
import soak
from processes import Processes, losses

from maskanim_jax.training.preemption import PreemptionHandler
from maskanim_jax.workdir.logs import read_log

pytestmark = pytest.mark.slow


@pytest.mark.subprocess
def test_after_each_kind_of_kill_nothing_differs(tiny_shards, tmp_path):
    said = []
    kinds = ["save", "term", "kill", "term, kill"]
    runs, met = soak.soak(tiny_shards, tmp_path, kinds, random.Random(1), "small", 10, said.append)
    assert len(said) == 1 + 4 + runs
    assert met.total() == 4
    assert met["saved and left with 75"] >= 1
    stopped = [line.get("text", "") for run in tmp_path.glob("run*") for line in read_log(run / "run")]
    assert any(line.startswith("stopped by SIGTERM after step ") for line in stopped)


@pytest.mark.subprocess
def test_a_difference_is_found(tiny_shards, tmp_path):
    """The comparison itself: a state, a batch and a figure that are otherwise."""
    soak.Run(tiny_shards, tmp_path / "one", "small", 4).finish()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    soak.compare(tmp_path / "one", tmp_path / "two")
    log = tmp_path / "two" / "run" / "log.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join([*lines, next(line for line in lines if '"loss"' in line)]) + "\n")
    with pytest.raises((AssertionError, ValueError)):  # a record more
        soak.compare(tmp_path / "one", tmp_path / "two")
    log.write_text("\n".join(lines) + "\n")
    order = tmp_path / "two" / "order.txt"
    order.write_text(order.read_text().replace("1 ", "9 ", 1))
    with pytest.raises(AssertionError, match="batches"):
        soak.compare(tmp_path / "one", tmp_path / "two")


def in_process(code):
    """Exit status and output of a process that sends itself signals."""
    command = [
        sys.executable,
        "-c",
        f"import os, signal, time\nfrom maskanim_jax.training.preemption import PreemptionHandler\n{code}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.subprocess
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 75), ("SIGINT", 130)])
def test_before_the_first_step_a_signal_ends_at_once_whatever_goes_on(name, status):
    code = f"with PreemptionHandler():\n    os.kill(os.getpid(), signal.{name}); time.sleep(60); print('late')"
    found, output = in_process(code)
    assert found == status
    assert f"stopped by {name}" in output
    assert "late" not in output


@pytest.mark.subprocess
def test_then_the_first_signal_is_noted_and_the_second_ends_at_once():
    code = (
        "with PreemptionHandler() as stop:\n"
        "    stop.mark_resumable(); assert not stop.should_stop(1)\n"
        "    os.kill(os.getpid(), signal.SIGTERM); assert stop.should_stop(1); print(stop.message(1), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM); time.sleep(60); print('late')"
    )
    status, output = in_process(code)
    assert status == -signal.SIGTERM
    assert "stopped by SIGTERM after step 1, which is saved" in output
    assert "late" not in output


@pytest.mark.subprocess
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 75), ("SIGINT", 130)])
def test_the_status_says_restart_me_or_interrupted(name, status):
    code = (
        "from maskanim_jax.errors import run_main\n"
        "def main():\n"
        "    with PreemptionHandler() as stop:\n"
        f"        stop.mark_resumable(); os.kill(os.getpid(), signal.{name}); stop.should_stop(1); stop.exit()\n"
        "run_main(main)"
    )
    assert in_process(code)[0] == status


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with PreemptionHandler():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.subprocess
def test_of_two_processes_one_is_told_and_both_stop_at_the_same_step(tiny_shards, tmp_path):
    endless = ["optim.max_steps=3000", "train.checkpoint_every=3000", "train.image_every=3000"]
    with Processes(2, tiny_shards, tmp_path, *endless) as run:
        run.until(lambda: losses(tmp_path))
        run.started[1].terminate()
        ends = run.ends()
    assert [status for status, _ in ends] == [75, 75], ends
    steps = [int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]
    last = [line for line in read_log(tmp_path) if "text" in line][-1]
    assert last["step"] == max(steps) < 3000
    assert last["text"].startswith("stopped by SIGTERM")
