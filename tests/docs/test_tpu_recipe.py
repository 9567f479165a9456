"""Are the commands of docs/tpu.md valid, and do hosts restart a training only after status 75? Neither gcloud nor a TPU is used."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from absl import flags
from doc_pages import fences

from maskanim_jax import main

ROOT = Path(__file__).parents[2]
FENCES = [fence for fence in fences(ROOT / "docs" / "tpu.md") if fence.language in ("bash", "sh")]
KNOWN = {
    "storage buckets create": {"--location"},
    "compute tpus queued-resources create": {
        "--node-id",
        "--zone",
        "--accelerator-type",
        "--runtime-version",
        "--spot",
    },
    "compute tpus tpu-vm ssh": {"--zone", "--worker", "--command"},
}
"""gcloud's commands, and those of their flags that its reference lists."""
RECORD = """#!/bin/bash
echo "$MASKANIM_DISTRIBUTED $(printf '%q ' "$@")" >> "$HOME/record"
number=$(wc -l < "$HOME/record")
exit $(sed -n "${number}p" "$HOME/statuses")
"""


def words_of(fence):
    """The words of the fence's one command, as bash reads it: lines within quotes are kept."""
    return shlex.split(fence.text.replace("\\\n", " ") if "'" not in fence.text else fence.text, comments=True)


def on_hosts():
    """What step 4 and step 5 run on every host."""
    scripts = [
        word.removeprefix("--command=") for fence in FENCES for word in words_of(fence) if word.startswith("--command=")
    ]
    assert len(scripts) == 2
    return scripts


@pytest.mark.subprocess
def test_there_are_five_commands_with_flags_that_exist():
    assert len(FENCES) == 5
    for fence in FENCES:
        assert subprocess.run(["bash", "-n"], input=fence.text, text=True).returncode == 0, fence
        words = words_of(fence)
        if words[0] != "gcloud":
            continue
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        name = next(name for name in KNOWN if " ".join(words[1:]).startswith(name))
        assert given <= KNOWN[name], fence


def host(folder, statuses):
    """A home folder with a fake Python that records its arguments and exits with the given statuses in turn."""
    python = folder / "maskanim" / "bin" / "python"
    for program in (python, folder / "bin" / "python3", folder / "bin" / "sleep"):
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/bin/bash\n" if program.name == "sleep" else RECORD)
        program.chmod(0o755)
    (folder / "statuses").write_text("\n".join(map(str, statuses)) + "\n")
    return {"HOME": str(folder), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


def recorded(folder, lines):
    until = time.monotonic() + 60
    record = folder / "record"
    while time.monotonic() < until and not (record.exists() and len(record.read_text().splitlines()) >= lines):
        time.sleep(0.05)
    time.sleep(0.3)  # one more would be too many
    return record.read_text().splitlines()


@pytest.mark.subprocess
@pytest.mark.parametrize(("statuses", "starts"), [((75, 75, 0), 3), ((2,), 1), ((75, 130), 2)])
def test_a_host_starts_again_after_75_and_no_other_status(tmp_path, statuses, starts):
    env = host(tmp_path, statuses)
    subprocess.run(["bash", "-c", on_hosts()[1]], env=env, check=True, timeout=60)  # returns at once
    lines = recorded(tmp_path, starts)
    assert len(lines) == starts
    assert len(set(lines)) == 1


@pytest.mark.subprocess
def test_what_a_host_trains_is_what_main_takes(tmp_path, monkeypatch):
    subprocess.run(["bash", "-c", on_hosts()[1]], env=host(tmp_path, [0]), check=True, timeout=60)
    distributed, dash_m, module, *arguments = shlex.split(recorded(tmp_path, 1)[0])
    assert (distributed, dash_m, module) == ("1", "-m", "maskanim_jax.main")
    here = f"{tmp_path}/maskanim/lib/python3.12/site-packages/"
    argv = ["main", *(argument.replace(here, f"{ROOT}/") for argument in arguments)]
    monkeypatch.setattr(sys, "argv", argv)
    parsed = flags.FLAGS.is_parsed()
    try:
        main.parse(sys.argv)
        assert main.WORKDIR.value == "gs://my-bucket/runs/taichi-1"
        assert main.CONFIG.value.data.shards == "gs://my-bucket/taichi256"
    finally:
        for name in [name for name in flags.FLAGS if name.startswith("config.")]:
            delattr(flags.FLAGS, name)
        if not parsed:
            flags.FLAGS.unparse_flags()


@pytest.mark.subprocess
def test_what_a_host_installs_stops_at_the_first_failure(tmp_path):
    env = host(tmp_path, [0, 0, 1, 0])
    assert subprocess.run(["bash", "-c", on_hosts()[0]], env=env, timeout=60).returncode == 1
    lines = recorded(tmp_path, 3)
    assert len(lines) == 3
    assert "maskanim_jax\\[gcs\\]" in lines[2]
