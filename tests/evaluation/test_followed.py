"""Does the demo's verdict distinguish a system that ignores the driver from one that follows it?"""

import pytest
from tiny import tiny_config

from maskanim_jax import animate
from maskanim_jax.checkpoints.loading import load_run
from maskanim_jax.errors import UserError
from maskanim_jax.evaluation import cross_identity, followed


@pytest.fixture(scope="module")
def bundled():
    return load_run("puppets")


def measured(run):
    variant = next(iter(run.system.variants))
    return cross_identity.measure_cross_identity(run, pairs=3, frames=3, starts=(followed.START,), variants=(variant,))


@pytest.mark.slow
def test_the_bundled_checkpoint_follows_the_driver(bundled):
    found = followed.verdict(measured(bundled))
    assert found.followed
    assert found.sentence.startswith("The driver was followed: in 3 animations")


@pytest.mark.slow
def test_a_result_that_ignores_the_driver_is_not_followed(monkeypatch):
    run = load_run("puppets")  # a system of its own, for which nothing is compiled yet
    system = type(run.system)
    real = system.animate

    def ignoring(self, variables, source_state, driving, *arguments, **options):
        return real(self, variables, source_state, 0 * driving + source_state["source"], *arguments, **options)

    monkeypatch.setattr(system, "animate", ignoring)
    found = followed.verdict(measured(run))
    assert not found.followed
    assert "NOT followed" in found.sentence


def test_real_clips_have_no_verdict(tmp_path):
    config = tiny_config()
    config.data.puppets.test_identities = 0
    assert followed.measure_followed(config, tmp_path) is None


def test_without_a_warm_start_there_is_nothing_before(tmp_path):
    followed.measure_before(tiny_config(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_networks_for_frames_of_another_size_are_not_measured_before(tmp_path, capsys):
    config = tiny_config()
    config.init_from = "puppets"
    followed.measure_before(config, tmp_path)
    assert not list(tmp_path.iterdir())
    assert "puppets is not measured before training: its frames have 128 pixels" in capsys.readouterr().out


@pytest.mark.slow
def test_the_example_of_a_bundled_checkpoint(tmp_path):
    animate.main(["--checkpoint=puppets", f"--example={tmp_path}/first_minute"])
    names = {path.name for path in (tmp_path / "first_minute").iterdir()}
    assert names == {"source.png", "driving.mp4", "out.mp4", "strip.mp4"}
    with pytest.raises(UserError, match="cannot be combined"):
        animate.main(["--checkpoint=puppets", f"--example={tmp_path}/b", "--source=a.png"])
    with pytest.raises(UserError, match="has no example"):
        animate.main([f"--checkpoint={tmp_path}", f"--example={tmp_path}/b"])
