"""Does a workdir record its config, resume with it, and refuse silent changes?"""

import json
import subprocess
import sys

import pytest
from small_system import SmallSystem
from small_train import small_config
from tiny import tiny_config

from maskanim_jax.errors import UserError
from maskanim_jax.training import experiment
from maskanim_jax.training import loop as train_module
from maskanim_jax.workdir import provenance, saved_config
from maskanim_jax.workdir.config import diff_config, read_config, write_config
from maskanim_jax.workdir.logs import read_log


def test_a_workdir_tells_every_change_and_which_of_them_matter(tmp_path):
    write_config(tmp_path, tiny_config())
    other = tiny_config()
    other.optim.learning_rate, other.train.log_every = 1.0, 1
    matter, harmless = diff_config(tmp_path, other)
    assert matter == [f"optim.learning_rate was {tiny_config().optim.learning_rate} and is 1.0"]
    assert harmless == ["train.log_every was 2 and is 1"]
    assert diff_config(tmp_path / "none", other) == ([], [])


def test_a_changed_config_is_refused_until_it_is_accepted(tmp_path):
    write_config(tmp_path, tiny_config())
    other = tiny_config()
    other.seed = 5
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UserError, match=r"seed was 0 and is 5.*--allow_config_change"):
        write_config(tmp_path, other)
    assert (tmp_path / "config.json").read_bytes() == before
    write_config(tmp_path, other, allow_config_change=True)
    assert read_config(tmp_path).seed == 5


def test_the_saved_config_is_the_one_that_was_given_tuples_included(tmp_path):
    config = tiny_config("shards")
    write_config(tmp_path, config)
    assert saved_config.get_config(str(tmp_path)).to_dict() == config.to_dict()


@pytest.mark.subprocess
def test_the_workdir_alone_gives_its_config_and_takes_fields_from_the_command_line(tmp_path):
    config = tiny_config("shards")
    write_config(tmp_path, config)
    code = (
        "import sys; from maskanim_jax import main; main.parse(sys.argv); c = main.CONFIG.value\n"
        "print(c.name, c.optim.max_steps, c.loss.pyramid_sizes, main.WORKDIR.value, main.ALLOW_CONFIG_CHANGE.value)"
    )
    command = [sys.executable, "-c", code, f"--workdir={tmp_path}", "--config.optim.max_steps=77"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[0] == f"tiny 77 (32,) {tmp_path} False", done.stderr[-2000:]


def test_a_given_config_or_a_folder_without_a_run_is_left_to_the_parser(tmp_path):
    for argv in (["main", f"--workdir={tmp_path}"], ["main"], ["main", "--workdir"]):
        given = list(argv)
        saved_config.take_saved_config(given)
        assert given == argv
    write_config(tmp_path, tiny_config())
    for flags in ([f"--workdir={tmp_path}"], ["-workdir", str(tmp_path)]):
        given = ["main", *flags]
        saved_config.take_saved_config(given)
        assert given == ["main", f"--config={saved_config.__file__}:{tmp_path}", *flags]
        given = ["main", "--config=configs/demo.py", *flags]
        saved_config.take_saved_config(given)
        assert given == ["main", "--config=configs/demo.py", *flags]


def test_a_start_has_config_versions_data_and_revision(tmp_path):
    start = provenance.make_run_record({"a": {"b": 1}}, {"data_fingerprint": "f"}, step=3)
    assert provenance.append_run_record(tmp_path, start) == []
    [read] = provenance.read_starts(tmp_path)
    assert read == start
    assert (read["step"], read["config"], read["data"]) == (3, {"a": {"b": 1}}, {"data_fingerprint": "f"})
    assert {"python", "jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy"} <= read["versions"].keys()
    assert all(read["versions"][name] for name in ("python", "jax", "flax", "numpy"))


def test_other_versions_and_another_revision_are_told(tmp_path):
    start = provenance.make_run_record({}, {})
    older = {**start, "versions": {**start["versions"], "jax": "0.1"}, "git": "abc"}
    provenance.append_run_record(tmp_path, older)
    told = provenance.append_run_record(tmp_path, {**start, "git": None})
    assert told == [f"jax was 0.1 and is {start['versions']['jax']}", "git revision was abc and is None"]
    assert len(provenance.read_starts(tmp_path)) == 2


@pytest.mark.subprocess
def test_the_revision_is_that_of_the_folder_itself_with_a_plus_for_changes(tmp_path):
    checkout = tmp_path / "checkout"
    (checkout / "inside").mkdir(parents=True)
    who = ["-c", "user.name=x", "-c", "user.email=x@x"]

    def git(*arguments):
        subprocess.run(["git", "-C", str(checkout), *who, *arguments], check=True, capture_output=True)

    git("init")
    (checkout / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "first")
    clean = provenance.git_revision(checkout)
    assert clean is not None
    assert len(clean) == 40
    (checkout / "file").write_text("2")
    assert provenance.git_revision(checkout) == clean + "+"
    assert provenance.git_revision(checkout / "inside") is None


@pytest.mark.parametrize("content", ["{", "[]", '{"starts": 3}', '{"starts": [3]}', "null"])
def test_a_damaged_record_is_a_sentence_and_left_alone(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"run\.json can't be read"):
        provenance.append_run_record(tmp_path, provenance.make_run_record({}, {}))
    assert (tmp_path / "run.json").read_text() == content


@pytest.mark.slow
def test_a_resumed_run_records_both_starts_refuses_another_seed_and_tells_what_was_accepted(
    tiny_shards, tmp_path, monkeypatch
):
    monkeypatch.setattr(experiment, "build", lambda config: SmallSystem())
    config = small_config(tiny_shards)
    train_module.train(config, tmp_path)
    config.seed, config.optim.max_steps = 3, 6
    with pytest.raises(UserError, match="seed was 0 and is 3"):
        train_module.train(config, tmp_path)
    assert len(provenance.read_starts(tmp_path)) == 1
    train_module.train(config, tmp_path, allow_config_change=True)
    first, second = provenance.read_starts(tmp_path)
    assert (first["step"], first["from_checkpoint"], first["config"]["seed"]) == (0, False, 0)
    assert (second["step"], second["from_checkpoint"], second["config"]["seed"]) == (3, True, 3)
    assert first["data"]["data_fingerprint"]
    assert second["changed"] == ["seed was 0 and is 3", "optim.max_steps was 3 and is 6"]
    assert any("changed since the last start: seed was 0" in line.get("text", "") for line in read_log(tmp_path))
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 3
