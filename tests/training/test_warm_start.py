"""Does a run start from another run's networks, also at another frame size, and report tensors that do not fit?"""

import ast
import json
import shutil

import jax
import numpy as np
import pytest
from tiny import tiny_config
from untrained_run import tiny_fomm, untrained

from configs import puppets
from maskanim_jax.checkpoints.loading import load_run
from maskanim_jax.distributed.sharding import make_mesh
from maskanim_jax.errors import UserError
from maskanim_jax.systems import build
from maskanim_jax.systems.train_state import init_on_mesh
from maskanim_jax.training import loop as train_module
from maskanim_jax.training.loop import train
from maskanim_jax.training.warm_start import INITIAL, read_initial, started_from
from maskanim_jax.workdir.logs import read_log
from maskanim_jax.workdir.provenance import read_starts

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_programs")]


def assert_equal_trees(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def started(config):
    """The state before the first step of a run of `config`, and what was recorded."""
    system, mesh = build(config), make_mesh(1)
    initial = read_initial(config, system)
    state = init_on_mesh(system, config.seed, 3, mesh, config.optim.ema)
    return started_from(initial, state, system, 3, mesh), initial.record


def other_seed(config, path, skip=()):
    config.seed, config.init_from, config.init_skip = 7, str(path), skip
    return config


def masks_at(size, mask):
    config = tiny_config()
    config.frame_size, config.mask.size = size, mask
    config.loss.pyramid_sizes = config.loss.coarse_pyramid_sizes = (size,)
    return config


def fomm_at(size):
    config = tiny_fomm()
    config.frame_size, config.loss.pyramid_sizes = size, (size,)
    return config


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("warm") / "masks", tiny_config())


@pytest.mark.parametrize(
    ("small", "large"), [(masks_at(32, 16), masks_at(64, 32)), (fomm_at(32), fomm_at(64))], ids=["masks", "fomm"]
)
def test_a_run_at_64_starts_from_one_at_32_of_the_same_widths(small, large, tmp_path):
    workdir = untrained(tmp_path / "small", small)
    state, record = started(other_seed(large, workdir))
    assert_equal_trees(state.variables, load_run(workdir).variables)
    assert (record["fresh"], record["left"], record["step"]) == ([], [], 0)
    assert any(sentence.startswith("frame_size was 32 and is 64") for sentence in record["other_settings"])
    system, frames = build(large), np.full((1, 64, 64, 3), 0.5, np.float32)
    made = jax.jit(system.reconstruct)(state.variables, frames, frames)[system.result]
    assert made.shape == (1, 64, 64, 3)
    assert np.isfinite(np.asarray(made)).all()


def test_another_ratio_of_frame_and_mask_is_refused_with_the_setting_and_can_be_skipped(masks):
    config = other_seed(masks_at(64, 16), masks)
    with pytest.raises(UserError) as refused:
        read_initial(config, build(config))
    sentence = str(refused.value)
    assert "frame_size / mask.size is 2 in that run and 4 here" in sentence
    assert "coarse/up1/" in sentence
    assert "\"--config.init_skip=('coarse/up1', 'coarse/last',)\"" in sentence
    config.init_skip = ("coarse/up1", "coarse/last")
    state, record = started(config)
    fresh = init_on_mesh(build(config), config.seed, 3, make_mesh(1)).params["coarse"]
    assert_equal_trees(state.params["coarse"]["up1"], fresh["up1"])
    assert_equal_trees(state.params["fine"], load_run(masks).variables.params["fine"])
    assert {name.rsplit("/", 1)[0] for name in record["fresh"]} >= {"coarse/last"}


@pytest.mark.parametrize("name", ["fine", "fine/last", "fine/last/kernel/"])
def test_what_is_skipped_is_fresh_although_it_would_fit(masks, name):
    config = other_seed(tiny_config(), masks, (name,))
    state, record = started(config)
    read = load_run(masks).variables.params["fine"]["last"]["kernel"]
    assert not np.array_equal(state.params["fine"]["last"]["kernel"], read)
    assert "fine/last/kernel" in record["fresh"]
    assert_equal_trees(state.params["mask"], load_run(masks).variables.params["mask"])


def test_the_optimiser_begins_anew_and_averages_begin_at_the_networks_that_were_read(masks):
    config = other_seed(tiny_config(), masks)
    config.optim.ema = 0.9
    state, _ = started(config)
    assert int(state.step) == 0
    fresh = build(config).optimizer(3).init(state.params)
    assert_equal_trees(state.opt_state, fresh)
    assert_equal_trees(state.averaged, load_run(masks).variables)


@pytest.mark.parametrize(
    ("path", "skip", "sentence"),
    [
        ("nowhere", (), "nowhere is not a folder"),
        ("masks", ("coarze",), "init_skip names 'coarze'.*coarse, fine, mask, refine"),
        ("masks", ("coar",), "init_skip names 'coar'"),
        ("fomm", (), "it is a run of fomm, not of perturbed_masks"),
        ("file.pth.tar", (), r"convert a checkpoint of the released code with .*maskanim_jax\.convert"),
        ("", ("coarse",), "init_skip=.*no effect without config.init_from"),
    ],
)
def test_what_cannot_be_is_a_sentence_and_touches_nothing(masks, tmp_path, tiny_shards, path, skip, sentence):
    (tmp_path / "file.pth.tar").write_bytes(b"x")
    if path == "fomm":
        untrained(tmp_path / "fomm", tiny_fomm())
    place = masks if path == "masks" else tmp_path / path
    config = other_seed(tiny_config(tiny_shards), place if path else "", skip)
    with pytest.raises(UserError, match=sentence):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def wider_masks():
    config = tiny_config()
    config.coarse.width, config.fine.width, config.fine.max_width = 12, 6, 24
    config.mask.width, config.refine.width = config.mask.width + 2, config.refine.width + 2
    return config


def wider_fomm():
    config = tiny_fomm()
    for part in (config.keypoints, config.motion, config.generator):
        part.width, part.max_width = part.width + 2, part.max_width + 4
    return config


@pytest.mark.parametrize(
    ("narrow", "wide"), [(tiny_config(), wider_masks()), (tiny_fomm(), wider_fomm())], ids=["masks", "fomm"]
)
def test_a_wider_run_starts_with_the_output_of_the_narrower_one(narrow, wide, tmp_path):
    workdir = untrained(tmp_path / "narrow", narrow)
    config = other_seed(wide, workdir)
    with pytest.raises(UserError, match=r"or keep their channels and add new ones with .*init_grow=") as refused:
        read_initial(config, build(config))
    # As the message says.
    config.init_grow = ast.literal_eval(str(refused.value).partition("init_grow=")[2].rstrip('"'))
    state, record = started(config)
    assert record["grown"]
    assert record["fresh"] == record["left"] == []
    one, other = load_run(workdir), build(config)
    source, driving = np.random.default_rng(0).random(
        (2, 1, one.system.frame_size, one.system.frame_size, 3), np.float32
    )
    before = jax.jit(one.system.reconstruct)(one.variables, source, driving)
    after = jax.jit(other.reconstruct)(state.variables, source, driving)
    for name in before:
        np.testing.assert_allclose(after[name], before[name], atol=1e-5, err_msg=name)
    kernels = {jax.tree_util.keystr(where): leaf for where, leaf in jax.tree.leaves_with_path(state.params)}
    zero = [name for name, leaf in kernels.items() if leaf.ndim == 4 and not np.abs(leaf).sum((0, 1, 2)).all()]
    assert [name for name in zero if "jacobian" not in name] == []  # each new channel has a kernel of its own


def test_the_run_at_128_starts_from_the_one_at_64_as_the_docs_say(tmp_path):
    config = other_seed(puppets.get_config("128"), untrained(tmp_path / "64", puppets.get_config("long")))
    config.init_skip, config.init_grow = ("coarse/up1", "coarse/last", "refine"), ("coarse", "fine")
    record = read_initial(config, build(config)).record
    assert {name.split("/")[0] for name in record["grown"]} == {"coarse", "fine"}
    assert {name.split("/")[0] for name in record["fresh"]} == {"coarse", "refine"}


@pytest.mark.parametrize(
    ("start", "sentence"),
    [
        ("", r"init_grow=.*no effect without config\.init_from"),
        ("masks", "init_grow names 'fines'.*coarse, fine, mask"),
    ],
)
def test_a_network_that_is_not_there_cannot_grow(masks, start, sentence):
    config = other_seed(tiny_config(), masks if start else "")
    config.init_grow = ("fines",)
    with pytest.raises(UserError, match=sentence):
        read_initial(config, build(config))


def test_a_narrower_network_cannot_grow(masks):
    config = other_seed(tiny_config(), masks)
    config.fine.width //= 2
    config.init_grow = ("fine",)
    with pytest.raises(UserError, match=r"tensors are misshapen .*fine") as refused:
        read_initial(config, build(config))
    assert "init_grow=" not in str(refused.value)


def test_a_run_starts_from_another_is_resumed_without_it_and_tells_all_of_it(tiny_shards, tmp_path, monkeypatch):
    """One step from a run, killed by an error before its first own checkpoint; the other run is gone by then."""
    other, workdir = untrained(tmp_path / "other", tiny_config()), tmp_path / "run"
    before = load_run(other).variables
    config = other_seed(tiny_config(tiny_shards), other)
    config.optim.max_steps = 2
    with monkeypatch.context() as patched:
        patched.setattr(train_module, "train_step", lambda *_: (_ for _ in ()).throw(KeyError("killed")))
        with pytest.raises(KeyError):
            train(config, workdir)
    assert_equal_trees(load_run(workdir).variables, before)
    shutil.rmtree(other)
    state = train(config, workdir)
    assert int(state.step) == 2
    starts = read_starts(workdir)
    assert [start["step"] for start in starts] == [0, 0]
    record = starts[1][INITIAL]
    assert record == starts[0][INITIAL]
    assert (record["path"], record["step"], len(record["sha256"])) == (str(other), 0, 64)
    texts = [line["text"] for line in read_log(workdir) if "text" in line]
    assert any(text.startswith(f"starts from {other}, step 0: ") for text in texts)
    assert any(
        "the networks start from" in sentence for sentence in json.loads((workdir / "departures.json").read_text())
    )


def test_a_bundled_checkpoint_is_started_from_by_its_name():
    config = load_run("puppets").config
    config.init_from, config.init_skip, config.seed = "puppets", (), 3
    state, record = started(config)
    assert_equal_trees(state.variables, load_run("puppets").variables)
    assert record["step"] == load_run("puppets").step
