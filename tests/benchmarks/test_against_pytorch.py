"""Do the other sides of the benchmark compute the same, from an exported checkpoint and from the ONNX export?"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import tiny_config
from untrained_run import tiny_fomm

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.comparison import engines, start, table
from benchmarks.comparison.ours import OurSide
from maskanim_jax.errors import UserError

pytestmark = pytest.mark.slow

BATCH = 4
CONFIGS = {"small recipe": tiny_config, "released form": tiny_config, "fomm": tiny_fomm}


def config_of(name):
    """A tiny config of each system and form."""
    config = CONFIGS[name]()
    config.num_cpu_devices = 1
    if name == "released form":
        config.mask.temperature = config.refine.temperature = 0.1
        config.mask.border, config.mask.area_weight, config.perturb.test_threshold = "zero", 0.0, "60"
    return config


@pytest.fixture(params=CONFIGS, scope="module")
def sides(request, tmp_path_factory):
    """(a function that makes both sides for a task, their config, their folder), as the benchmark makes them."""
    pytest.importorskip("torch", reason="PyTorch, an extra of the benchmarks, is not installed")
    from benchmarks.pytorch.side import TorchSide

    folder, patch = tmp_path_factory.mktemp("weights"), pytest.MonkeyPatch()
    patch.setattr("maskanim_jax.distributed.setup.configure_jax", lambda config: None)
    start.export_weights(folder, config_of(request.param), untrained=True)
    with np.load(folder / "vgg.npz") as stored:
        vgg = dict(stored)

    def make(task):
        ours = OurSide(config_of(request.param), vgg, task, jax.device_count())
        return ours, TorchSide(config_of(request.param), folder / f"{task}.pth.tar", vgg, task)

    yield make, config_of(request.param), folder
    patch.undo()


def batch(config):
    """Source and driving frames, and the values that replace random numbers."""
    count = jax.device_count() * BATCH
    frames = [start.drawn_frames(count, config.frame_size, seed) for seed in (1, 2)]
    return *frames, start.random_numbers(config, count)


def test_losses_and_gradient_norms_are_equal(sides):
    make, config, _ = sides
    ours, theirs = (side.compare(*batch(config)) for side in make("step"))
    if config.system == "fomm":
        assert set(ours["losses"]) == {"perceptual", "equivariance_value", "equivariance_jacobian"}
    else:
        assert set(ours["losses"]) == {"mask", "coarse", "fine"} | ({"area"} if config.mask.area_weight else set())
    for name, value in theirs["losses"].items():
        assert ours["losses"][name] == pytest.approx(value, rel=1e-4), name
    for name, value in theirs["norms"].items():
        assert ours["norms"][name] == pytest.approx(value, rel=1e-2), name
    table.check(ours, theirs)


def test_both_ways_of_pytorch_animate_as_we_do(sides):
    make, config, _ = sides
    ours, theirs = make("animation")
    source, video = (start.drawn_frames(count, config.frame_size, count) for count in (1, 10))
    expected = ours.animate(source[0], video, "8")[1]
    assert np.ptp(expected, 0).max() > 0.005  # the driving video is seen
    for way in ("released", "4"):
        for last in (False, True):
            theirs.layout(last)
            np.testing.assert_allclose(theirs.animate(source[0], video, way)[1], expected, atol=1e-3)


def test_a_step_of_pytorch_moves_every_network(sides):
    make, config, _ = sides
    side = make("step")[1]
    before = {name: [p.detach().clone() for p in side.model.network(name)] for name in side.model.NETWORKS}
    assert sum(map(len, before.values())) == len(list(side.model.parameters()))
    side.step(*batch(config)[:2], count=1)
    for name, old in before.items():
        new = list(side.model.network(name))
        assert any(not np.array_equal(a, b.detach()) for a, b in zip(old, new, strict=True)), name


@pytest.mark.parametrize("name", ["small recipe", "fomm"])
@pytest.mark.parametrize("engine", engines.ENGINES)
def test_an_engine_animates_our_export_as_we_do(name, engine, tmp_path, monkeypatch):
    pytest.importorskip("jax2onnx", reason="the extra `onnx` is not installed")
    pytest.importorskip(engine.lower().replace(" ", ""), reason="an extra of the benchmarks is not installed")
    monkeypatch.setattr("maskanim_jax.distributed.setup.configure_jax", lambda config: None)
    config = config_of(name)
    ours = OurSide(config, {}, "animation", 1)
    start.export_onnx(tmp_path, config, 4)
    source, video = (start.drawn_frames(count, config.frame_size, count) for count in (1, 6))
    found = engines.EngineSide(engine, tmp_path).animate(source[0], video, "4")[1]
    np.testing.assert_allclose(found, ours.animate(source[0], video, "4")[1], atol=1e-3)


def test_unequal_sides_are_refused():
    ours = {"losses": {"mask": 1.0, "fine": 2.0}, "norms": {"mask": 1.0}}
    table.check(ours, json.loads(json.dumps(ours)))
    for wrong in (
        {"losses": {"mask": 1.002, "fine": 2.0}, "norms": {"mask": 1.0}},
        {"losses": {"mask": 1.0, "fine": float("nan")}, "norms": {"mask": 1.0}},
        {"losses": {"mask": 1.0, "fine": 2.0}, "norms": {"mask": 1.02}},
        {"losses": {"mask": 1.0}, "norms": {"mask": 1.0}},
    ):
        with pytest.raises(UserError, match="fix this"):
            table.check(ours, wrong)


def test_the_table_has_ratios_of_every_row():
    row = {"what": "fomm: step, batch 4; PyTorch", "unit": "s", "ours": [1.0, 2.0, 3.0], "other": [4.0, 4.0, 4.0]}
    lines = table.table([row | {"ratios": [0.25, 0.5, 0.75], "goal": 0.7}, row | {"ratios": [0.5], "goal": None}])
    assert "| fomm: step, batch 4; PyTorch | 2 s (1 to 3) | 4 s (4 to 4) | 0.5 (0.25 to 0.75) | 0.7 |" in lines
    assert lines.endswith("| 0.5 |  |")
