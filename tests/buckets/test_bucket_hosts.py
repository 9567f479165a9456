"""Do two processes without a shared disk train on one bucket like one process on a disk, even if one is killed?"""

import os
import signal

import numpy as np
import pytest
from gcs_server import BUCKET
from processes import EIGHT_STEPS, ROUNDING, Processes, losses, state_at

from maskanim_jax.buckets.local_paths import fetched

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone(tiny_shards, tmp_path_factory):
    """The workdir of eight steps by one process on two devices, on a disk."""
    workdir = tmp_path_factory.mktemp("alone")
    with Processes(1, tiny_shards, workdir, *EIGHT_STEPS, "num_cpu_devices=2") as one:
        status, said = one.ends()[0]
    assert status == 0, said[-3000:]
    return workdir


def close(found, expected):
    np.testing.assert_allclose(found, expected, **ROUNDING)


@pytest.mark.subprocess
@pytest.mark.parametrize("victim", [0, 1])
def test_two_processes_one_of_them_killed_both_started_again_come_to_the_result_of_one(
    gcs, tiny_shards, alone, tmp_path, monkeypatch, victim
):
    server, _ = gcs
    name = f"two-{victim}"
    server.put_folder(tiny_shards, f"{name}/shards")
    run, shards = f"gs://{BUCKET}/{name}/run", f"gs://{BUCKET}/{name}/shards"
    with Processes(2, shards, run, *EIGHT_STEPS, f"hold=6,{victim}") as both:
        both.until(
            lambda: (
                "checkpoints/4/SHA256SUMS" in server.names(f"{name}/run/")
                and '"step": 5' in server.read(f"{name}/run/log.jsonl").decode()
            )
        )
        both.started[victim].send_signal(signal.SIGKILL)
        ends = both.ends()
    status, said = ends[1 - victim]
    assert status == 75, said[-3000:]
    assert f"process {victim} of 2" in said
    close(state_at(fetched(run), 4), state_at(alone, 4))
    with Processes(2, shards, run, *EIGHT_STEPS) as both:
        for status, said in both.ends():
            assert status == 0, said[-3000:]
    workdir = fetched(run)
    close(state_at(workdir, 8), state_at(alone, 8))
    found, expected = losses(workdir), losses(alone)
    assert list(found) == list(expected) == list(range(1, 9))
    close(list(found.values()), list(expected.values()))
    # Each process and this test had its own copy of the run; one copy of the shards served all.
    cache = tmp_path / "bucket-cache"
    assert sorted(path.name for path in next((cache / "runs").iterdir()).iterdir() if path.is_dir()) == list("012")
    assert len(os.listdir(cache / "shards")) == 1
