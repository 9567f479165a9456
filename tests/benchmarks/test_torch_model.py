"""Does the PyTorch writing that we are timed against compute what we compute, from a file of the exporter?"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import tiny_config

torch = pytest.importorskip("torch", reason="PyTorch, an extra of the benchmarks, is not installed")
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import against_pytorch, jax_side  # noqa: E402
from benchmarks.torch_model import TorchSide  # noqa: E402

BATCH = 4


@pytest.fixture(params=["small recipe", "released form"], scope="module")
def sides(request, tmp_path_factory):
    """(ours, PyTorch, their config) for the step of the tiny config, as the benchmark makes them."""
    folder, patch = tmp_path_factory.mktemp("weights"), pytest.MonkeyPatch()

    def config_of(_):
        config = tiny_config()
        config.num_cpu_devices = 1
        if request.param == "released form":
            config.mask.temperature = config.refine.temperature = 0.1
            config.mask.border, config.mask.area_weight, config.perturb.test_threshold = "zero", 0.0, "60"
        return config

    patch.setattr(jax_side, "config_of", config_of)
    patch.setattr("maskanim_jax.distributed.setup.prepare", lambda config: None)
    jax_side.export(folder, 0, untrained=True)
    with np.load(folder / "vgg.npz") as stored:
        vgg = dict(stored)

    def make(task):
        ours = jax_side.OurSide(config_of(0), vgg, task, jax.device_count())
        return ours, TorchSide(config_of(0), folder / "weights.pth.tar", vgg, task)

    yield make, config_of(0)
    patch.undo()


def batch(config):
    """Source, driving and a perturbed mask."""
    side, count = config.mask.size, jax.device_count() * BATCH
    frames = [jax_side.drawn_frames(count, config.frame_size, seed) for seed in (1, 2)]
    return *frames, np.random.default_rng(3).random((count, side, side, 1), np.float32)


def test_losses_and_gradient_norms_are_equal(sides):
    make, config = sides
    ours, theirs = (side.compare(*batch(config)) for side in make("step"))
    assert set(ours["losses"]) == {"mask", "coarse", "fine"} | ({"area"} if config.mask.area_weight else set())
    for name, value in theirs["losses"].items():
        assert ours["losses"][name] == pytest.approx(value, rel=1e-3), name
    for name, value in theirs["norms"].items():
        assert ours["norms"][name] == pytest.approx(value, rel=1e-2), name
    against_pytorch.check(ours, theirs)


def test_both_ways_of_pytorch_animate_as_we_do(sides):
    make, config = sides
    ours, theirs = make("animation")
    source, video = (jax_side.drawn_frames(count, config.frame_size, count) for count in (1, 10))
    expected = ours.animate(source[0], video, "batched")[1]
    assert np.ptp(expected, 0).max() > 0.005  # the driving video is seen
    for way in against_pytorch.WAYS:
        for last in (False, True):
            theirs.layout(last)
            np.testing.assert_allclose(theirs.animate(source[0], video, way)[1], expected, atol=1e-3)


def test_a_step_of_pytorch_moves_every_network(sides):
    make, config = sides
    side = make("step")[1]
    before = {
        name: [p.detach().clone() for p in side.model.network(name)] for name in ("mask", "refine", "coarse", "fine")
    }
    assert sum(map(len, before.values())) == len(list(side.model.parameters()))
    side.step(*batch(config)[:2], count=1)
    for name, old in before.items():
        new = list(side.model.network(name))
        assert any(not torch.equal(a, b) for a, b in zip(old, new, strict=True)), name


def test_unequal_sides_are_refused():
    ours = {"losses": {"mask": 1.0, "fine": 2.0}, "norms": {"mask": 1.0}}
    against_pytorch.check(ours, json.loads(json.dumps(ours)))
    for wrong in (
        {"losses": {"mask": 1.002, "fine": 2.0}, "norms": {"mask": 1.0}},
        {"losses": {"mask": 1.0, "fine": float("nan")}, "norms": {"mask": 1.0}},
        {"losses": {"mask": 1.0, "fine": 2.0}, "norms": {"mask": 1.02}},
        {"losses": {"mask": 1.0}, "norms": {"mask": 1.0}},
    ):
        with pytest.raises(against_pytorch.UserError, match="mend"):
            against_pytorch.check(ours, wrong)
