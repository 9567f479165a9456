"""Does the TPU launcher print what it would run, quote what it is given, and go on after a preemption? No TPU and no gcloud is used."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))

from maskanim_jax.errors import UserError
from scripts.launch_tpu import checked, launch, main, parser

HOSTILE = "a b'c\"d$(touch pwned)`touch pwned`;touch pwned &|*\\"
GIVEN = [
    "--name=run-1", "--project=mine", "--zone=us-west4-a", "--package=git+https://example.org/a.git@v1", "--data=gs://bucket/shards",
    "--share=10.0.0.2:/runs", "--workdir=taichi", "--results=out",
]  # fmt: skip
RECORD = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["RECORD"], "a") as file:
    file.write(json.dumps(sys.argv) + "\\n")
sys.exit(int(open(os.environ["STATUS"]).read().split()[0]) if os.path.exists(os.environ.get("STATUS", "")) else 0)
"""


def program(path, text=RECORD):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def slice_of(*more):
    return checked(parser().parse_args([*GIVEN, *more]))


def hostile():
    return slice_of(
        f"--workdir={HOSTILE}", f"--data=gs://{HOSTILE}", f"--share=h:/{HOSTILE}", "--", f"--config={HOSTILE}"
    )


def test_a_dry_run_prints_every_command_as_bash_reads_it_and_runs_none(tmp_path, capsys, monkeypatch):
    """What is printed, run by bash with a gcloud that only writes down what it was given, is what would be run."""
    program(tmp_path / "bin" / "gcloud")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    monkeypatch.chdir(tmp_path)
    given = [*GIVEN, "--spot", "--dry-run", f"--workdir={HOSTILE}", "--", f"--config={HOSTILE}", "--config.seed=1"]
    assert main(given) == 0
    printed = capsys.readouterr().out
    assert not (tmp_path / "record").exists()
    assert subprocess.run(["bash", "-n"], input=printed, text=True).returncode == 0
    subprocess.run(["bash"], input=printed, text=True, check=True)
    seen = [json.loads(line)[1:] for line in (tmp_path / "record").read_text().splitlines()]
    assert seen == [command[1:] for _, command in checked(parser().parse_args(given)).commands()]
    assert "--spot" in seen[0]
    assert not (tmp_path / "pwned").exists()
    verbs = [" ".join(words[2:4]) for words in seen]
    assert verbs[0] == "queued-resources create"
    assert verbs[-1] == "queued-resources delete"


def remote(command):
    """What a host's shell would be given."""
    return next(word for word in command if word.startswith("--command=")).removeprefix("--command=")


def test_what_hosts_run_is_bash_and_takes_names_as_they_are(tmp_path):
    for _, command in hostile().commands():
        if any(word.startswith("--command=") for word in command):
            assert subprocess.run(["bash", "-n", "-c", remote(command)], capture_output=True).returncode == 0
    program(tmp_path / "bin" / "sudo")
    for name in ("gcloud", "python3", "mountpoint", "mount.nfs"):
        program(tmp_path / "bin" / name)
    program(tmp_path / "maskanim" / "bin" / "python")
    record = tmp_path / "record"
    env = {"HOME": str(tmp_path), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "RECORD": str(record)}
    subprocess.run(["bash", "-c", remote(hostile().install())], check=True, env=env, cwd=tmp_path)
    seen = [json.loads(line) for line in record.read_text().splitlines()]
    copied = next(words for words in seen if words[1:3] == ["storage", "rsync"])
    assert copied[-2:] == [f"gs://{HOSTILE}", str(tmp_path / "maskanim" / "data")]
    assert not (tmp_path / "pwned").exists()


def test_hosts_start_again_after_75_and_write_down_any_other_status(tmp_path):
    """The command of `train`, with a Python that ends with 75 and then with 3."""
    python = (
        'import json, os, sys\nhome = os.environ["HOME"]\n'
        'open(home + "/record", "a").write(json.dumps([sys.argv[1:], os.environ["MASKANIM_DISTRIBUTED"]]) + "\\n")\n'
        'sys.exit(75 if len(open(home + "/record").readlines()) < 2 else 3)\n'
    )
    program(tmp_path / "maskanim" / "bin" / "python", f"#!{sys.executable}\n{python}")
    program(tmp_path / "bin" / "sleep", "#!/bin/sh\n")
    env = {"HOME": str(tmp_path), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    # `wait` stands for the hours in which nobody is logged in.
    done = subprocess.run(["bash", "-c", f"{remote(hostile().train())} wait"], env=env, cwd=tmp_path, timeout=60)
    assert done.returncode == 0
    assert (tmp_path / "maskanim" / "status").read_text() == "3\n"
    starts = [json.loads(line) for line in (tmp_path / "record").read_text().splitlines()]
    wanted = ["-m", "maskanim_jax.main", f"--workdir=/mnt/maskanim/{HOSTILE}", f"--config={HOSTILE}"]
    assert starts == [[[*wanted, f"--config.data.shards={tmp_path}/maskanim/data"], "1"]] * 2
    assert not (tmp_path / "pwned").exists()
    seen = subprocess.run(["bash", "-c", remote(hostile().progress())], env=env, capture_output=True, text=True)
    assert re.search(r"^status 3$", seen.stdout, re.MULTILINE)


class Cloud:
    """A gcloud that grants at the second look, takes the slice away `preemptions` times, and then lets training end."""

    def __init__(self, preemptions, status=0):
        self.left, self.status, self.looks, self.done = preemptions, status, 0, []

    def __call__(self, command):
        words = " ".join(command[3:5])
        if words == "tpu-vm ssh":
            words += " " + next(word for word in command if word.startswith("--worker"))
        self.done.append(words)
        if words == "queued-resources describe":
            self.looks += 1
            return 0, "WAITING_FOR_RESOURCES\n" if self.looks == 1 else "ACTIVE\n"
        if words == "tpu-vm describe":
            self.left -= 1
            return 0, "PREEMPTED\n" if self.left >= 0 else "READY\n"
        return 0, f"step 12\nstatus {self.status}\n" if words == "tpu-vm ssh --worker=0" else ""


def test_a_preempted_slice_is_made_again_and_the_end_is_fetched_and_deleted():
    cloud = Cloud(preemptions=2)
    assert launch(slice_of("--spot"), cloud, restarts=3, keep=False, sleep=lambda seconds: None) == 0
    assert cloud.done.count("queued-resources create") == 3
    assert cloud.done[-2:] == ["tpu-vm scp", "queued-resources delete"]
    again = cloud.done.index("queued-resources create", 1)
    assert cloud.done[again - 1] == "queued-resources delete"


def test_a_slice_that_is_lost_while_it_is_prepared_is_made_again():
    cloud = Cloud(preemptions=1)

    def unreachable_at_first(command):
        found = cloud(command)
        return (255, "") if cloud.done[-1] == "tpu-vm ssh --worker=all" and cloud.left > 0 else found

    assert launch(slice_of(), unreachable_at_first, restarts=1, keep=False, sleep=lambda seconds: None) == 0
    assert cloud.done.count("queued-resources create") == 2


def test_a_minute_without_network_here_takes_no_slice_away():
    cloud, lost = Cloud(preemptions=0), [5]

    def without_network(command):
        found = cloud(command)
        if cloud.done[-1] == "tpu-vm describe" and lost[0]:
            lost[0] -= 1
            return 1, ""
        return found

    assert launch(slice_of(), without_network, restarts=0, keep=False, sleep=lambda seconds: None) == 0
    assert cloud.done.count("queued-resources create") == 1


def test_a_failed_training_is_fetched_too_and_its_status_is_the_commands():
    cloud = Cloud(preemptions=0, status=2)
    assert launch(slice_of(), cloud, restarts=3, keep=False, sleep=lambda seconds: None) == 2
    assert "tpu-vm scp" in cloud.done


def test_whatever_happens_the_slice_is_deleted_unless_it_shall_be_kept(capsys):
    cloud = Cloud(preemptions=9)
    with pytest.raises(UserError, match="lost 2 times"):
        launch(slice_of(), cloud, restarts=1, keep=False, sleep=lambda seconds: None)
    assert cloud.done[-1] == "queued-resources delete"
    kept = Cloud(preemptions=0)
    launch(slice_of(), kept, restarts=0, keep=True, sleep=lambda seconds: None)
    assert "queued-resources delete" not in kept.done
    assert "gcloud compute tpus queued-resources delete run-1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--name=Mine;rm", "cannot be a slice's name"),
        ("--name=-x", "cannot be a slice's name"),
        ("--zone=a$(b)", "lower-case"),
        ("--data=/local", "no folder of a bucket"),
        ("--share=/local", "no NFS share"),
        ("--workdir=../up", "on the share"),
        ("--workdir=a\nb", "on the share"),
        ("--package=--index-url=x", "--package"),
        ("--restarts=-1", "0 or more"),
    ],
)
def test_what_cannot_be_is_a_sentence(flag, sentence):
    with pytest.raises(UserError, match=sentence):
        slice_of(flag)


def test_the_price_is_the_users_and_the_sum_is_said(capsys):
    assert main([*GIVEN, "--dry-run", "--price=0.5", "--hours=10"]) == 0
    assert "16 chips for 10 hours at 0.5 each: 80.00" in capsys.readouterr().out
    with pytest.raises(UserError, match="together"):
        main([*GIVEN, "--dry-run", "--price=0.5"])


def test_flags_of_the_training_that_are_this_commands_own_are_refused():
    with pytest.raises(UserError, match="this command's own"):
        slice_of("--", "--config=configs/taichi.py", "--workdir=elsewhere")
