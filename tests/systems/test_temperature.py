"""Does the temperature of m and r fall as configured, in training and in checkpoints, and is a collapsing mask reported with the remedy?"""

import jax
import numpy as np
import pytest
from tiny import one_step_config, tiny_config
from untrained_run import untrained

from configs import bair, mgif, perturbed_masks, taichi, voxceleb
from maskanim_jax.checkpoints.loading import load_run
from maskanim_jax.errors import UserError
from maskanim_jax.systems import build
from maskanim_jax.systems.perturbed_masks.networks import temperature
from maskanim_jax.training.loop import train
from maskanim_jax.training.warm_start import read_initial
from maskanim_jax.workdir.config import diff_config, read_config
from maskanim_jax.workdir.logs import read_log

pytestmark = pytest.mark.usefixtures("shared_programs")


def cooling(shards=""):
    config = one_step_config(shards)
    for network in (config.mask, config.refine):
        network.temperature, network.temperature_end, network.temperature_steps = 0.4, 0.1, 4
    return config


def test_the_temperature_falls_by_the_same_factor_each_step_and_stays_at_its_end():
    found = [float(temperature(step, cooling().mask)) for step in (0, 1, 2, 4, 9)]
    np.testing.assert_allclose(found, [0.4, 0.4 * 4**-0.25, 0.2, 0.1, 0.1], rtol=1e-6)


@pytest.mark.slow
def test_a_trained_checkpoint_has_the_temperature_that_its_step_had_reached(tiny_shards, tmp_path):
    """Step 3 is made at 0.4 / 2; what is loaded animates with it, and the log tells it."""
    config = cooling(tiny_shards)
    config.optim.max_steps, config.train.log_every, config.train.checkpoint_every = 3, 1, 3
    train(config, tmp_path)
    run = load_run(tmp_path, "last")
    for name in ("mask", "refine"):
        assert float(run.variables.stats[name]["temperature"]) == pytest.approx(0.2, rel=1e-6)
    logged = [line["temperature_mask"] for line in read_log(tmp_path) if "temperature_mask" in line]
    np.testing.assert_allclose(logged, [0.4, 0.4 * 4**-0.25, 0.2], rtol=1e-5)
    constant = one_step_config("")
    constant.mask.temperature = constant.refine.temperature = 0.2
    frames = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    plain = jax.tree.map(lambda leaf: leaf, run.variables)
    for name in ("mask", "refine"):
        del plain.stats[name]["temperature"]
    ours, expected = (
        jax.jit(system.reconstruct)(system.for_inference(variables), frames[:1], frames[1:])["driving_mask"]
        for system, variables in ((run.system, run.variables), (build(constant), plain))
    )
    np.testing.assert_allclose(ours, expected, atol=2e-5)


@pytest.mark.slow
def test_a_run_without_a_course_has_no_temperature_among_its_statistics_and_starts_from_one_with(tmp_path):
    variables = jax.eval_shape(build(one_step_config("")).init, jax.random.key(0))
    assert "temperature" not in variables.stats["mask"]
    config = one_step_config("")
    config.init_from = str(untrained(tmp_path / "cooling", cooling()))
    assert read_initial(config, build(config)).record["left"] == []
    config = cooling()
    config.init_from = str(untrained(tmp_path / "constant", one_step_config("")))
    assert read_initial(config, build(config)).record["fresh"] == []


def test_a_config_saved_before_there_were_these_settings_is_read_and_not_called_changed(tmp_path):
    import json

    saved = tiny_config().to_dict()
    for network in ("mask", "refine"):
        del saved[network]["temperature_end"], saved[network]["temperature_steps"]
    for field in ("shape_scale", "shape_stretch", "shape_blur", "draws", "whole_scale"):
        del saved["perturb"][field]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    assert read_config(tmp_path).mask.temperature_steps == 0
    assert read_config(tmp_path).perturb.draws == 1
    assert diff_config(tmp_path, tiny_config()) == ([], [])
    saved["perturb"]["scale"] = 0.4  # older versions scaled strips and the whole mask by it
    (tmp_path / "config.json").write_text(json.dumps(saved))
    assert read_config(tmp_path).perturb.whole_scale == 0.4


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", 0.0), ("temperature_end", -1.0), ("temperature_steps", -1)]
)
def test_a_temperature_that_cannot_be_is_refused(field, value):
    config = cooling()
    config.mask[field] = value
    with pytest.raises(UserError, match=rf"config\.mask\.{field}="):
        build(config)


@pytest.mark.parametrize("module", [taichi, voxceleb, bair, mgif], ids=lambda m: m.__name__)
def test_the_stable_configs_have_the_papers_sizes_and_losses_and_name_each_departure(module):
    stable, paper = module.get_config("stable"), module.get_config()
    changed = perturbed_masks.get_config()
    perturbed_masks.prevent_mask_collapse(paper)
    assert stable.to_dict() == paper.to_dict()
    perturbed_masks.prevent_mask_collapse(changed)
    paper_deviations = build(stable).paper_deviations()
    assert paper_deviations == build(changed).paper_deviations()
    assert len(paper_deviations) == 1
    assert "m's learning rate is multiplied by 0.01" in paper_deviations[0]


def test_a_dying_mask_is_told_with_the_config_that_keeps_it_alive_unless_it_is_that_config():
    dead = {"mask_space": 0.001, "mask_mean": 0.002, "mask_time": 0.0}
    (alarm,) = build(voxceleb.get_config()).collapse_warnings(dead)
    assert "configs/voxceleb.py:stable" in alarm
    assert "docs/avoiding-mask-collapse.md" in alarm
    (alarm,) = build(taichi.get_config()).collapse_warnings(dead | {"mask_space": 0.1})
    assert "configs/taichi.py:stable" in alarm
    (alarm,) = build(taichi.get_config("stable")).collapse_warnings(dead)
    assert "stable" not in alarm
