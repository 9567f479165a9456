"""If the data has both, does validation choose the checkpoint and test measure it?"""

import json

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_config

from input_pipeline.from_config import held_out_split, open_data, true_silhouettes
from input_pipeline.prepare import prepare
from input_pipeline.shards import open_split
from maskanim_jax.checkpoints.run import LoadedRun
from maskanim_jax.errors import UserError
from maskanim_jax.evaluation import evaluate_run
from maskanim_jax.systems.interface import Variables
from maskanim_jax.training.experiment import build_experiment


def real_clips(root, names):
    """Clips of three frames of noise at ROOT/SPLIT/NAME."""
    rng = np.random.default_rng(0)
    for name in names:
        folder = root / name
        folder.mkdir(parents=True)
        for t in range(3):
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / f"{t}.png")
    return root


def test_prepare_takes_a_validation_folder_and_training_measures_it(tmp_path):
    root = real_clips(tmp_path / "root", ["train/a#0", "validation/b#0", "test/b#1", "test/c#0"])
    report = prepare(root, tmp_path / "shards", size=32)
    assert [clip.name for clip in open_split(tmp_path / "shards", "validation").clips] == ["b#0"]
    assert report["identities_in_both"] == ["b"]
    config = tiny_config(tmp_path / "shards")
    config.data.puppets.train_identities = config.data.puppets.validation_identities = 0
    assert held_out_split(config) == "validation"


def test_without_a_validation_folder_the_test_split_chooses(tmp_path):
    prepare(real_clips(tmp_path / "root", ["train/a#0", "test/b#0"]), tmp_path / "shards", size=32)
    config = tiny_config(tmp_path / "shards")
    config.data.puppets.train_identities = config.data.puppets.validation_identities = 0
    assert held_out_split(config) == "test"


def test_clips_of_ones_own_have_no_silhouettes_with_the_config_of_puppets_either(tmp_path):
    prepare(real_clips(tmp_path / "root", ["train/a#0", "test/b#0"]), tmp_path / "shards", size=32)
    config = tiny_config(tmp_path / "shards")
    assert held_out_split(config) == "test"
    assert true_silhouettes(config, open_data(config, "test")) is None


def test_training_holds_out_the_validation_puppets(tiny_shards):
    experiment = build_experiment(tiny_config(tiny_shards))
    assert experiment.held_out.name == "validation"
    assert {clip.identity for clip in experiment.held_out.clips} == {"p10000", "p10001", "p10002"}
    assert experiment.silhouettes("p10000#0").shape == (5, 32, 32)


@pytest.mark.parametrize(("field", "value"), [("version", 1), ("seed", 3)])
def test_shards_of_another_drawing_are_refused(tiny_shards, field, value):
    config = tiny_config(tiny_shards)
    config.data.puppets[field] = value
    with pytest.raises(UserError, match="other puppets"):
        open_data(config, "train")


class Still:
    """A System that reconstructs the source."""

    name, result, frame_size, output_names, mask_output = "still", "source", 32, ("source", "driving"), None

    def reconstruct(self, variables, source, driving):
        return {"source": source, "driving": driving}


def test_validation_is_measured_into_its_own_file(tiny_shards, tmp_path, monkeypatch):
    config = tiny_config(tiny_shards)
    config.reconstruct.split = "validation"
    run = LoadedRun(config, Still(), Variables({}, {}), 5)
    monkeypatch.setattr(evaluate_run, "_load", lambda config, workdir: run)
    evaluate_run.reconstruct_test(config, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "reconstruction_validation",
        "reconstruction_validation.json",
    ]
    figures = json.loads((tmp_path / "reconstruction_validation.json").read_text())
    assert figures["split"] == "validation"
    assert {clip["identity"] for clip in figures["clips"]} == {"p10000", "p10001", "p10002"}


def test_another_split_is_refused(tmp_path):
    config = tiny_config()
    config.reconstruct.split = "train"
    with pytest.raises(UserError, match=r"reconstruct\.split=train"):
        evaluate_run.reconstruct_test(config, tmp_path)
