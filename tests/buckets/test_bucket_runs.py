"""Is a run with its workdir in a bucket the same as on a disk, whatever happens to the process and the server?"""

import json
import random
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import soak
import soak_bucket
from gcs_server import BUCKET, Proxy
from small_system import SmallSystem
from small_train import small_config
from tiny import tiny_config

from maskanim_jax.buckets import connection
from maskanim_jax.buckets.local_paths import fetched, opened
from maskanim_jax.checkpoints.loading import load_run, saved_config
from maskanim_jax.checkpoints.manager import CheckpointManager
from maskanim_jax.errors import UserError
from maskanim_jax.evaluation import followed
from maskanim_jax.reports import run_page
from maskanim_jax.reports.runs import read_runs
from maskanim_jax.training import experiment, loop
from maskanim_jax.workdir.logs import read_log
from maskanim_jax.workdir.saved_config import take_saved_config

pytestmark = pytest.mark.usefixtures("shared_programs")

NOT_COMPARED = ("time", "steps_per_second", "data_wait_share", "text")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(experiment, "build", lambda config: SmallSystem())
    monkeypatch.setattr("maskanim_jax.checkpoints.loading.build", lambda config: SmallSystem())
    monkeypatch.setattr(connection, "MIN_DELAY", 0.02)


def config_of(shards, steps, every=2):
    config = small_config(shards)
    config.optim.max_steps, config.train.checkpoint_every = steps, every
    return config


def figures(workdir):
    return [
        {key: value for key, value in line.items() if key not in NOT_COMPARED}
        for line in read_log(workdir)
        if "loss" in line
    ]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


@pytest.fixture(scope="module")
def alone(tiny_shards, tmp_path_factory):
    """Workdir and last state of six steps on a disk."""
    workdir = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "build", lambda config: SmallSystem())
        return workdir, loop.train(config_of(tiny_shards, 6), workdir)


@pytest.fixture
def run(request):
    """The address of a run of its own."""
    return f"gs://{BUCKET}/{request.node.name}"


def prefix_of(run):
    return run.removeprefix(f"gs://{BUCKET}/") + "/"


@pytest.mark.subprocess
def test_it_is_the_same_run_and_every_command_finds_it(gcs, tiny_shards, alone, run, monkeypatch):
    server, proxy = gcs
    loop.train(config_of(tiny_shards, 3, every=3), run)
    state = loop.train(config_of(tiny_shards, 6), run)  # resumed
    assert same(state, alone[1])
    names = server.names(prefix_of(run))
    assert {"config.json", "run.json", "log.jsonl", "departures.json", "checkpoints/6/SHA256SUMS"} <= set(names)
    assert any(name.startswith("tensorboard/") for name in names)
    assert not [name for name in names if name.split("/")[-1].startswith(".") or name.endswith(".part")]
    assert figures(fetched(run)) == figures(alone[0])
    # The list of checksums is uploaded last and deleted first.
    changes = [(method, path) for method, path in proxy.seen if method != "GET" and "checkpoints" in path]
    written = [path for method, path in changes if method == "POST" and "checkpoints%2F6%2F" in path]
    assert [("SHA256SUMS" in path) for path in written] == [False] * (len(written) - 1) + [True]
    deleted = [path for method, path in changes if method == "DELETE" and "checkpoints%2F3%2F" in path]
    assert [("SHA256SUMS" in path) for path in deleted] == [True] + [False] * (len(deleted) - 1)
    # What other commands need.
    assert saved_config(run).name == "tiny"
    assert load_run(run, "last").step == load_run(f"{run}/checkpoints/6").step == 6
    with pytest.raises(UserError, match=rf"^{run}/checkpoints/5 is not a folder"):
        load_run(f"{run}/checkpoints/5")
    argv = ["main", f"--workdir={run}"]
    take_saved_config(argv)
    assert "saved_config.py:" in argv[1]
    with pytest.raises(UserError, match=rf"^{run} has no metrics: .* --workdir={run} "):
        read_runs([Path(run)])
    page = run_page.write_report(run)
    assert "report.html" in server.names(prefix_of(run))
    assert str(page) == f"gs:/{BUCKET}/{prefix_of(run)}report.html"


@pytest.mark.subprocess
def test_the_verdict_on_a_run_is_written_to_the_bucket(gcs, run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    system = SmallSystem()
    system.variants = {"full": ()}
    monkeypatch.setattr(followed, "load_run", lambda workdir, which: SimpleNamespace(system=system))
    monkeypatch.setattr(followed.cross_identity, "measure_cross_identity", lambda *_, **options: {"rows": []})
    monkeypatch.setattr(followed, "verdict", lambda figures: "followed")
    assert followed.measure_followed(tiny_config(), Path(run)) == "followed"
    assert "truth.json" in gcs[0].names(prefix_of(run))
    assert not (tmp_path / "gs:").exists()


@pytest.mark.subprocess
def test_a_second_training_is_refused(gcs, tiny_shards, run, monkeypatch):
    monkeypatch.setattr("maskanim_jax.buckets.lock.HEARTBEAT_S", 0.1)
    with (
        opened(run, training=True),
        pytest.raises(UserError, match=r"is in use: process \d+ on .* trains there"),
    ):
        loop.train(config_of(tiny_shards, 2), run)


@pytest.mark.subprocess
def test_what_was_half_written_does_not_count_and_is_swept(gcs, tiny_shards, alone, run):
    server, _ = gcs
    loop.train(config_of(tiny_shards, 2), run)
    server.write(f"{prefix_of(run)}checkpoints/4/state/d/half", b"half")
    server.write(f"{prefix_of(run)}checkpoints/2000/info/metadata", b"{}")
    with CheckpointManager(fetched(run), read_only=True) as checkpoints:
        assert checkpoints.all_steps() == [2]
    assert same(loop.train(config_of(tiny_shards, 6), run), alone[1])
    assert soak_bucket.half_written(server.names(f"{prefix_of(run)}checkpoints/")) == set()
    assert not server.names(f"{prefix_of(run)}checkpoints/2000/")


@pytest.mark.subprocess
def test_a_local_leftover_of_a_killed_process_does_not_count(gcs, tiny_shards, alone, run):
    """The bucket takes precedence: another machine may have continued the run."""
    loop.train(config_of(tiny_shards, 2), run)
    leftover = fetched(run)
    (leftover / "checkpoints" / "9").mkdir()
    (leftover / "log.jsonl").write_text("nonsense")
    (leftover / "other").write_text("")
    with opened(f"{run}") as folder:
        assert figures(folder) == figures(alone[0])[:2]
    assert fetched(run) == leftover
    assert not (leftover / "checkpoints" / "9").exists()
    assert not (leftover / "other").exists()


@pytest.mark.subprocess
def test_a_damaged_object_is_named_by_its_address_with_what_to_do(gcs, tiny_shards, run, tmp_path):
    server, _ = gcs
    loop.train(config_of(tiny_shards, 4), run)
    name = next(name for name in server.names(prefix_of(run)) if name.startswith("checkpoints/4/state/d/"))
    content = bytearray(server.read(prefix_of(run) + name))
    content[len(content) // 2] ^= 1
    server.write(prefix_of(run) + name, bytes(content))
    shutil.rmtree(tmp_path / "bucket-cache")  # otherwise the complete local copy would be used
    with pytest.raises(
        UserError, match=rf"{run}/checkpoints/4 can't be restored: {run}/{name} is not what was saved"
    ) as error:
        loop.train(config_of(tiny_shards, 6), run)
    assert f"--workdir={run} --restore_step=2" in str(error.value)
    loop.train(config_of(tiny_shards, 6), run, restore_step=2)
    assert f"set_aside/4/{name.removeprefix('checkpoints/4/')}" in server.names(prefix_of(run))
    texts = [line.get("text") for line in read_log(fetched(run))]
    assert f"the checkpoint of step 4 was moved to {run}/set_aside/4" in texts


@pytest.mark.subprocess
@pytest.mark.parametrize("fault", ["503", "drop", "cut"])
def test_a_server_that_fails_for_a_while_is_waited_for(gcs, tiny_shards, alone, run, fault):
    _, proxy = gcs
    healed = threading.Timer(1.5, proxy.fail, (None,))
    first = threading.Lock()  # several uploads begin at once

    def matches(method, path):  # from the first checkpoint's first object on
        started = "checkpoints%2F2%2F" in path
        if started and first.acquire(blocking=False):
            healed.start()
        return started

    proxy.fail(fault, matches=matches)
    assert same(loop.train(config_of(tiny_shards, 6), run), alone[1])
    assert healed.finished.is_set()
    with opened(run) as folder:
        assert figures(folder) == figures(alone[0])


@pytest.mark.subprocess
def test_one_that_does_not_come_back_ends_the_run_with_75_and_the_same_command_resumes(
    gcs, tiny_shards, alone, run, monkeypatch
):
    _, proxy = gcs
    monkeypatch.setenv(connection.WAIT, "1")
    monkeypatch.setattr(connection, "_AFTER_FAILURE", 0.2)
    proxy.fail("503", matches=lambda method, path: "checkpoints%2F4" in path)
    with pytest.raises(
        UserError, match=r"could not be reached for 1 s \(the server answers 503\): run the same command again"
    ) as error:
        loop.train(config_of(tiny_shards, 6), run)
    assert error.value.status == 75
    proxy.fail(None)
    assert same(loop.train(config_of(tiny_shards, 6), run), alone[1])
    with opened(run) as folder:
        assert figures(folder) == figures(alone[0])


@pytest.mark.subprocess
def test_a_bucket_that_is_missing_is_said_before_training(gcs, tiny_shards):
    with pytest.raises(UserError, match=r"^the bucket gs://no-such-bucket does not exist"):
        loop.train(config_of(tiny_shards, 2), "gs://no-such-bucket/run")


@pytest.mark.subprocess
def test_after_kills_nothing_differs(gcs_session, tiny_shards, tmp_path):
    server, _ = gcs_session
    with Proxy(server, latency=0.02) as slow:
        said = []
        make = soak_bucket.bucket_run(server, slow)
        _, met = soak.soak(
            tiny_shards, tmp_path, ["save", "kill", "term"], random.Random(2), "small", 8, said.append, make
        )
    assert met.total() == 3, said
    assert json.loads((tmp_path / "whole" / "best.json").read_text())[1] == 8
