"""Does one command run the whole study: train both systems, reconstruct, compare with the ground truth, compare runs, and resume where it stopped?"""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from maskanim_jax.errors import UserError
from maskanim_jax.reports import study, study_page
from maskanim_jax.study import main
from maskanim_jax.workdir.logs import MetricWriter

ROOT = Path(__file__).parents[2]
CONFIG = """
import sys
sys.path.insert(0, {tests!r})
from tiny import tiny_config

def get_config():
    pm = tiny_config("data/tiny32")
    pm.optim.max_steps, pm.num_cpu_devices, pm.loss.vgg_layers = 2, 1, ("relu1_1",)
    {rest}
    return {which}
"""
FOMM = """
    from configs import fomm_puppets
    c = fomm_puppets.get_config()
    c.frame_size, c.batch_size = 32, 8
    for network in (c.keypoints, c.motion):
        network.width, network.num_blocks, network.max_width = 4, 2, 16
    c.generator.width, c.generator.max_width, c.generator.residual_blocks = 4, 8, 1
    c.loss.pyramid_sizes, c.loss.vgg_layers, c.loss.vgg, c.num_cpu_devices = (32,), ("relu1_1",), "untrained", 1
    c.data, c.optim, c.train = pm.data.copy_and_resolve_references(), pm.optim, pm.train
    c.data.random_crop, c.data.resize_low, c.data.resize_high = False, 1.0, 1.0
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(folder of the study, what the first call printed, what the second one did)."""
    folder = tmp_path_factory.mktemp("study")
    for name, rest, which in (("one", "", "pm"), ("two", FOMM, "c")):
        (folder / f"{name}.py").write_text(CONFIG.format(tests=str(ROOT / "tests/helpers"), rest=rest, which=which))
    flags = ["--name=tiny", "--config=one.py", "--config=two.py", "--workdir=out", "--pairs=2", "--frames=2"]
    flags.append("--config.animate.pairs=1")
    command = [sys.executable, "-m", "maskanim_jax.study", *flags, "--page=page.md"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=900, check=False)
    assert ended.returncode == 0, ended.stdout[-1000:] + ended.stderr[-3000:]
    again = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(again), pytest.MonkeyPatch.context() as patched:
        patched.setattr(study, "call", lambda run, what, *_: pytest.fail(f"{what} of {run.name} again"))
        assert main(flags) == 0
    return folder, ended.stdout, again.getvalue()


@pytest.mark.slow
@pytest.mark.subprocess
def test_both_systems_are_trained_measured_and_set_side_by_side(done):
    folder = done[0] / "out"
    figures = json.loads((folder / "report" / "figures.json").read_text())
    assert [run["run"] for run in figures["runs"]] == ["tiny-perturbed_masks", "tiny-fomm"]
    assert [run["steps"] for run in figures["runs"]] == [2, 2]
    assert all(run["untrained_vgg"] for run in figures["runs"])
    (found,) = figures["sets"]  # the same data for both
    assert [row["run"] for row in found["rows"]] == ["tiny-perturbed_masks", "tiny-fomm", "copying the source"]
    (truth,) = figures["truth"]
    assert {row["variant"] for row in truth["rows"]} == {
        *("copying the source", "the driver itself", "full", "no_pert", "no_ref", "no_id", "relative", "absolute")
    }
    assert list((folder / "tiny-fomm" / "animation").glob("*.mp4"))
    assert (folder / "report" / "index.html").is_file()


@pytest.mark.slow
@pytest.mark.subprocess
def test_a_second_call_trains_nothing_again(done):
    assert done[2].count("trained and reconstructed already") == 2
    assert "finished at step" in done[1]
    assert "finished at step" not in done[2]


@pytest.mark.slow
@pytest.mark.subprocess
def test_the_page_has_tables_curves_and_strips_between_its_marks(done):
    page = (done[0] / "page.md").read_text()
    assert page.index(study_page.BEGIN) < page.index("| tiny-fomm |") < page.index(study_page.END)
    for name in ("curves-tiny32.svg", "tiny-fomm.png", "tiny-perturbed_masks.png"):
        assert (done[0] / "page" / name).stat().st_size > 200
        assert f"(page/{name})" in page


def test_the_prose_around_the_marks_stays_and_a_page_without_marks_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(study_page, "read_runs", lambda folders: [])
    page = tmp_path / "page.md"
    page.write_text(f"before\n{study_page.BEGIN}\nold\n{study_page.END}\nafter\n")
    figures = {"runs": [], "sets": [], "truth": []}
    study_page.regenerate(page, [], figures)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    page.write_text("no marks")
    with pytest.raises(UserError, match="generated: begin"):
        study_page.regenerate(page, [], figures)
    assert page.read_text() == "no marks"


def test_the_sets_have_equal_steps_and_batches_for_both_systems():
    from maskanim_jax.workdir.config_files import load_config

    for configs in study.SETS.values():
        one, other = (load_config(name) for name in configs)
        assert (one.system, other.system) == ("perturbed_masks", "fomm")
        for field in (
            "data.shards",
            "data.sampling",
            "batch_size",
            "seed",
            "optim.max_steps",
            "optim.cosine_steps",
        ):
            values = [config.to_dict() for config in (one, other)]
            for part in field.split("."):
                values = [value[part] for value in values]
            assert values[0] == values[1], field
        # the draws of each identity in an epoch; where an epoch is one pass over the clips they are not used
        assert one.data.sampling == "clip" or one.data.num_repeats == other.data.num_repeats


def test_missing_shards_of_real_clips_are_one_sentence_before_anything_is_trained(tmp_path):
    with pytest.raises(UserError, match=r"mgif64.*input_pipeline.prepare"):
        study.plan(tmp_path, {"mgif": study.SETS["mgif"]}, data=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_has_a_run_for_each_system_and_seed(tmp_path):
    runs = study.plan(tmp_path, {"puppets": study.SETS["puppets"]}, data=tmp_path, steps=7, seeds=[0, 3])
    assert [run.name for run in runs] == [
        f"puppets-{system}-seed{seed}" for system in ("perturbed_masks", "fomm") for seed in (0, 3)
    ]
    assert runs[1].overrides[:3] == (
        f"--config.data.shards={tmp_path / 'puppets64v2'}", "--config.seed=3", "--config.optim.max_steps=7"
    )  # fmt: skip
    assert "--config.train.checkpoint_every=5" in runs[1].overrides
    (long,) = study.plan(tmp_path, {"puppets": ["configs/puppets.py"]}, steps=4000)
    assert not any("train." in flag for flag in long.overrides)  # the config's own intervals fit
    with pytest.raises(UserError, match="two configs"):
        study.plan(tmp_path, {"x": ["configs/puppets.py", "configs/demo.py"]})


def test_a_run_is_finished_when_its_log_says_so_of_these_steps(tmp_path):
    (run,) = study.plan(tmp_path, {"puppets": ["configs/puppets.py"]}, steps=9)
    assert not study.is_finished(run)
    (run.workdir / "checkpoints" / "9").mkdir(parents=True)
    (run.workdir / "config.json").write_text(json.dumps({"optim": {"max_steps": 9}}))
    with MetricWriter(run.workdir) as log:
        log.text(4, "stopped")
    assert not study.is_finished(run)
    with MetricWriter(run.workdir, 4) as log:
        log.text(9, "finished at step 9 of 9")
    assert study.is_finished(run)
    assert not study.is_finished(run._replace(steps=10))


def test_the_report_shows_the_measured_runs_of_earlier_calls_too(tmp_path):
    for name, steps in (("other-fomm", 3), ("mgif-fomm", 3), ("faces-fomm", 4)):
        (tmp_path / name / "checkpoints" / "3").mkdir(parents=True)
        (tmp_path / name / "reconstruction.json").write_text(json.dumps({"checkpoint_step": steps}))
    planned = [tmp_path / "puppets-fomm-seed1", tmp_path / "mgif-perturbed_masks"]
    shown = [folder.name for folder in study.measured_runs(tmp_path, planned)]  # not that of another checkpoint
    assert shown == ["puppets-fomm-seed1", "mgif-perturbed_masks", "mgif-fomm", "other-fomm"]


def test_a_command_that_fails_ends_the_study_with_its_name(tmp_path):
    (run,) = study.plan(tmp_path, {"puppets": ["configs/puppets.py"]})
    with pytest.raises(UserError, match=r"training of puppets-perturbed_masks ended with status 2"):
        study.call(run, "training", "maskanim_jax.main", "--mode=train", "--config.no_such_field=1")


@pytest.mark.parametrize(
    ("flags", "word"),
    [(["--sets=moon"], "moon"), (["--steps=0"], "--steps"), (["--seeds=a"], "--seeds"), (["--what"], "--what")],
)
def test_what_the_command_can_not_do_is_a_sentence(tmp_path, flags, word):
    with pytest.raises(UserError, match=word):
        main([f"--workdir={tmp_path}", *flags])
