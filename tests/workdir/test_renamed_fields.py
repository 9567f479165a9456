"""Are old files read under their old names, and does the command line name the new ones?"""

import json

import pytest
from tiny import tiny_config

from maskanim_jax import animate, main
from maskanim_jax.errors import UserError
from maskanim_jax.reports import run_page
from maskanim_jax.workdir.config import diff_config, read_config
from maskanim_jax.workdir.renamed_fields import FIELDS, refuse_old_names, upgrade_config


def with_old_names(config):
    """The config as an older version saved it."""
    saved = json.loads(json.dumps(config.to_dict()))
    for old, new in FIELDS.items():
        section, _, name = new.rpartition(".")
        holder = saved.get(section, {}) if section else saved
        if name in holder:
            holder[old.rpartition(".")[2]] = holder.pop(name)
    return saved


def test_an_older_config_is_the_same_config(tmp_path):
    config = tiny_config()
    old = with_old_names(config)
    assert {"repeats", "threads", "own_jitter"} <= old["data"].keys()
    assert "num_repeats" not in old["data"]
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert diff_config(tmp_path, config) == ([], [])
    assert read_config(tmp_path).mask.num_blocks == config.mask.num_blocks


def test_a_new_name_beside_an_old_one_is_kept():
    assert upgrade_config({"data": {"threads": 3, "num_threads": 5}}) == {"data": {"num_threads": 5}}


@pytest.mark.parametrize(
    ("argument", "new"),
    [
        ("--config.optim.accumulate=2", "--config.optim.grad_accum_steps"),
        ("--accept_changes", "--allow_config_change"),
        ("-from_step=3", "--restore_step"),
        ("--strip=a.mp4", "--save_intermediates"),
    ],
)
def test_an_old_flag_gets_a_sentence_with_the_new_one(argument, new):
    with pytest.raises(UserError, match=f"was renamed: give {new}"):
        refuse_old_names([argument])


def test_the_commands_ask_for_old_names():
    with pytest.raises(UserError, match="find_best_frame"):
        animate.main(["--best_frame", "--checkpoint=puppets"])
    with pytest.raises(UserError, match="num_threads"):
        main.parse(["main", "--config.data.threads=3"])


def test_reports_read_older_figures(tmp_path):
    figures = {"l1": 0.05, "l1_repeat_source": 0.1, "ratio": 0.5, "frames": 3, "checkpoint_step": 2, "clips": []}
    (tmp_path / "reconstruction.json").write_text(json.dumps(figures))
    assert "0.1000" in run_page.summary(tmp_path)
