"""Does benchmarks/recipes.py train what its table says?"""

from __future__ import annotations

import json

import pytest

from benchmarks.recipes import CONFIGS, RECIPES, command, folder_name, table
from maskanim_jax.systems import build
from maskanim_jax.workdir.config import flat_config
from maskanim_jax.workdir.config_files import load_config

EVERY = [(system, name) for system, recipes in RECIPES.items() for name in recipes]


@pytest.mark.parametrize(("system", "name"), EVERY)
def test_a_recipe_changes_fields_of_its_system_and_no_others(system, name):
    usual, changed = load_config(CONFIGS[system]), load_config(CONFIGS[system])
    changes = RECIPES[system][name].changes
    with changed.unlocked():
        changed.update_from_flattened_dict(changes)
    build(changed)
    before, after = flat_config(usual.to_dict()), flat_config(changed.to_dict())
    assert {key for key in after if before.get(key) != after[key]} == set(changes)


@pytest.mark.parametrize("system", RECIPES)
def test_a_larger_batch_gets_fewer_steps_of_the_same_pairs(system, tmp_path):
    steps = {}
    for name in ("as it is", "batch 16"):
        (flag,) = [each for each in command(system, name, tmp_path, 5000, "") if "max_steps" in each]
        steps[name] = int(flag.partition("=")[2])
    assert steps["as it is"] == 4 * steps["batch 16"] == 5000


def test_the_table_shows_what_was_measured_by_pairs_seen(tmp_path):
    for name, step, ratio in (("as it is", 1000, 0.75), ("batch 16", 250, 0.5)):
        folder = tmp_path / folder_name("fomm", name)
        folder.mkdir()
        records = [{"step": 10, "loss": 1.0}, {"step": step, "test_ratio": ratio}]
        (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert table(tmp_path, ["perturbed_masks", "fomm"]).splitlines() == [
        "| fomm | 1000 |",
        "| --- | --- |",
        "| as it is | 0.750 |",
        "| batch 16 | 0.500 |",
    ]
