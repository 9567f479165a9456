"""Does the probe warn of a mask that ignores its input, of an ignored driver, and of a driver whose appearance leaks?"""

from dataclasses import dataclass
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from maskanim_jax.checkpoints.manager import CheckpointManager
from maskanim_jax.evaluation.probe import DRIVERS, SOURCES, probe, probe_pairs, probe_warnings
from maskanim_jax.systems.interface import Variables
from maskanim_jax.training import loop
from maskanim_jax.training.early_stopping import Patience
from maskanim_jax.workdir.logs import read_log
from maskanim_jax.workdir.workdir import Workdir

NOTHING = Variables({}, {})


@dataclass(frozen=True)
class Toy:
    """A System whose result is the source plus a chosen part of the driver, and whose mask is the driver's red or constant."""

    seen: str = "pose"
    mask: str = "alive"
    result: str = "answer"
    mask_output: str | None = "mask"
    output_names: tuple = ("answer",)
    frame_size: int = 8

    def animation_options(self, given):
        return ()

    def encode_source(self, variables, source, first):
        return source

    def animate(self, variables, source_state, driving, options):
        pose = 0.3 * driving.mean(-1, keepdims=True)  # rotating the colours does not change it
        shown = {
            "pose": source_state * 0.7 + pose,
            "nothing": source_state + 0 * driving,
            "driver": driving,
            "half": 0.5 * source_state + 0.5 * driving,
            "blur": jnp.full_like(driving, 0.5) + 0.01 * pose,
        }
        mask = driving[..., :1] if self.mask == "alive" else 0 * driving[..., :1] + jnp.linspace(0, 1, 8)[:, None]
        return {"answer": shown[self.seen], "mask": mask}


class Split:
    """Six clips of random colour, three frames each."""

    def __init__(self, clips=6, identities=6, colour=True):
        self.clips = [SimpleNamespace(name=f"c{i}", identity=f"{i % identities}", count=3) for i in range(clips)]
        rng = np.random.default_rng(1)
        self._frames = rng.integers(0, 256, (clips, 3, 8, 8, 3), np.uint8)
        if not colour:
            self._frames[..., 1:] = self._frames[..., :1]

    def frame(self, number, index):
        return self._frames[number, index]


def figures_of(system, **split):
    return probe(system, NOTHING, probe_pairs(Split(**split)))


def test_a_system_that_follows_the_pose_raises_no_alarm():
    figures = figures_of(Toy())
    assert set(figures) == {"probe_result_drivers", "probe_mask_drivers", "probe_leak", "probe_nearer_driver"}
    assert abs(figures["probe_leak"]) < 0.05
    assert probe_warnings(figures) == []


def test_a_mask_that_is_the_same_for_every_driver_ignores_its_input():
    figures = figures_of(Toy(mask="constant"))
    assert figures["probe_mask_drivers"] == pytest.approx(0, abs=1e-6)
    (alarm,) = probe_warnings(figures)
    assert "ignores its input" in alarm


def test_a_result_that_repeats_the_source_ignores_the_driver():
    figures = figures_of(Toy("nothing", mask_output=None))
    assert "probe_mask_drivers" not in figures
    (alarm,) = probe_warnings(figures)
    assert "driver is ignored" in alarm


@pytest.mark.parametrize(("seen", "share"), [("driver", 1.0), ("half", 0.5)])
def test_drivers_colours_in_the_result_are_a_leak_of_that_share(seen, share):
    figures = figures_of(Toy(seen))
    assert figures["probe_leak"] == pytest.approx(share, abs=1e-4)
    (alarm,) = probe_warnings(figures)
    assert "identity leaks" in alarm
    assert f"{100 * share:.0f} %" in alarm


def test_a_grey_blur_is_near_to_everybody_and_no_leak():
    assert probe_warnings(figures_of(Toy("blur")) | {"probe_nearer_driver": 0.8, "probe_result_drivers": 0.1}) == []


def test_grey_clips_have_no_leak_of_colours_to_measure():
    assert "probe_leak" not in figures_of(Toy("driver"), colour=False)
    assert figures_of(Toy("driver"), colour=False)["probe_nearer_driver"] == 1


def test_the_batch_is_fixed_and_never_drives_a_source_by_its_own_identity():
    batch, again = probe_pairs(Split(clips=7, identities=3)), probe_pairs(Split(clips=7, identities=3))
    assert batch.drivings.shape == (SOURCES, DRIVERS, 8, 8, 3)
    np.testing.assert_array_equal(batch.drivings, again.drivings)
    split = Split(clips=7, identities=3)
    for number in range(SOURCES):
        own = [split.frame(n, 1) for n, clip in enumerate(split.clips) if clip.identity == split.clips[number].identity]
        assert not any((driving == frame).all() for driving in batch.drivings[number] for frame in own)
    assert probe_pairs(Split(identities=1)) is None


def test_training_logs_the_probe_and_says_an_alarm_in_words(tmp_path, monkeypatch):
    """The real end of an evaluation, with a system that leaks."""
    measured = {"l1": 0.1, "l1_copy_source": 0.2, "ratio": 0.5}
    monkeypatch.setattr(loop, "reconstruct", lambda *_, **__: measured)
    monkeypatch.setattr(loop, "whole", lambda state, mesh: state, raising=False)  # one device has all of it
    settings = SimpleNamespace(num_eval_clips=1, eval_frames=1)
    setting = SimpleNamespace(
        config=SimpleNamespace(train=settings),
        system=Toy("driver"),
        held_out=Split(),
        silhouettes=None,
        info={},
        mesh=None,
    )
    saved, clock = SimpleNamespace(save=lambda *_, **__: None), SimpleNamespace(minutes=lambda: 1.0)
    patience = Patience(0, CheckpointManager(tmp_path, read_only=True))
    folder = Workdir(tmp_path)
    with folder.opened(0):
        loop._evaluate_and_save(
            loop.Run(setting, folder, saved, clock, patience, None), SimpleNamespace(averaged=NOTHING), 7
        )
    records = read_log(tmp_path)
    assert records[0]["probe_leak"] == pytest.approx(1, abs=1e-4)
    assert records[0]["test_l1"] == 0.1
    assert records[1]["text"].startswith("ALARM: identity leaks")
    assert records[1]["step"] == 7
