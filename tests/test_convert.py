"""Does a released checkpoint become a run and a run a released checkpoint, unchanged, and is every wrong or hostile file refused?"""

import functools
import os
import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import FOLDER, fill, keys, needed
from tiny import tiny_config

from maskanim_jax import convert
from maskanim_jax.checkpoints import Checkpoints, abstract_state, claim_workdir, load_run
from maskanim_jax.convert import export_checkpoint, import_checkpoint
from maskanim_jax.errors import UserError
from maskanim_jax.logs import read_log
from maskanim_jax.mesh import make_mesh
from maskanim_jax.state import TrainState
from maskanim_jax.systems import build
from maskanim_jax.systems.adam_state import Moments, place_moments
from maskanim_jax.systems.perturbed_masks.released import layout, tensors
from maskanim_jax.systems.released_format import Unused, trained
from maskanim_jax.systems.released_reading import _shape
from maskanim_jax.torch_files import read_tensors
from maskanim_jax.torch_writer import write_tensors
from maskanim_jax.train import train


def small_config(shards=""):
    """The tiny config with the released networks' form."""
    config = tiny_config(shards)
    config.mask.temperature = config.refine.temperature = 0.1
    config.mask.border, config.mask.normalise_logits, config.mask.logit_offset = "zero", False, 0.0
    return config


@functools.cache
def shapes():
    """Variables of `small_config`, shapes alone."""
    return jax.eval_shape(build(small_config()).init, jax.random.key(0))


def released_file(path, change=lambda tree: None, updates=12, epoch=3):
    """A file of the released code for `small_config`, every tensor random; r was updated three epochs of four."""
    config, optimisers = small_config(), {}
    like, rng = shapes(), np.random.default_rng(0)
    places, tree = layout(config), {"generator": {}, "mask_generator": {}}
    for name, at in places.items():
        module, rest = name.split(".", 1)
        if isinstance(at, Unused):
            at_least = np.array(7) if at.default.dtype.kind == "i" else rng.random(at.default.shape, np.float32)
            tree[module][rest] = at.default if at.fixed else at_least
        else:
            tree[module][rest] = rng.random(_shape(at, like), np.float32) + 0.5
    for module in ("generator", "mask_generator"):
        names, state = trained(places, module), {}
        for number, name in enumerate(names):
            if not isinstance(places[name], Unused):
                one, two = rng.standard_normal((2, *tree[module][name.split(".", 1)[1]].shape), np.float32)
                steps = updates * 3 // 4 if places[name].path[0] == "refine" else updates
                state[number] = {"step": np.float32(steps), "exp_avg": one, "exp_avg_sq": two**2}
        group = {"lr": 2e-4, "betas": (0.5, 0.999), "eps": 1e-8, "params": list(range(len(names)))}
        optimisers[f"optimizer_{module}"] = {"state": state, "param_groups": [group]}
    tree |= optimisers | {"epoch": epoch}
    change(tree)
    write_tensors(path, tree)
    return path


def arrays(tree, name=""):
    """Every array of a nested dict by its full name."""
    if isinstance(tree, dict):
        return {k: v for key, item in tree.items() for k, v in arrays(item, f"{name}.{key}").items()}
    return {name: tree} if isinstance(tree, np.ndarray) else {}


def state_of(workdir, steps_per_epoch=3):
    config = small_config()
    with Checkpoints(workdir, read_only=True) as checkpoints:
        like = abstract_state(build(config), 0, steps_per_epoch)
        return jax.device_get(checkpoints.restore(checkpoints.last(), like, make_mesh(8)))


def assert_equal_trees(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


# -- the names -----------------------------------------------------------------------------------------------------------------------------


@needed
def test_names_shapes_and_order_are_those_of_the_released_file():
    config = convert.load_config(convert.DEFAULT_CONFIG)
    like = jax.eval_shape(build(config).init, jax.random.key(0))
    ours = {name: list(_shape(at, like)) for name, at in layout(config).items()}
    theirs = {f"{m}.{name}": shape for m in ("generator", "mask_generator") for name, shape in keys()[m].items()}
    assert list(ours.items()) == list(theirs.items())


def test_every_variable_of_ours_is_in_the_file():
    assert len(tensors(small_config())) == len(jax.tree.leaves(shapes()))


# -- there and back ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("convert")
    path = released_file(folder / "07-checkpoint.pth.tar")
    import_checkpoint(path, folder / "run", small_config(), steps_per_epoch=3)
    return path, folder / "run"


def test_import_places_tensors_moments_and_counts(imported):
    theirs, state = read_tensors(imported[0]), state_of(imported[1])
    np.testing.assert_array_equal(
        state.params["coarse"]["first"]["conv"]["kernel"],
        theirs["generator"]["first.conv.weight"].transpose(2, 3, 1, 0),
    )
    np.testing.assert_array_equal(
        state.stats["refine"]["body"]["up0"]["norm"]["var"],
        theirs["generator"]["mask_fix_net.decoder.up_blocks.1.norm.running_var"],
    )
    assert state.step == 12
    inner = state.opt_state[0].inner_states
    assert inner["mask"].inner_state[0].count == 12
    assert inner["refine"].inner_state.seen == 12  # steps seen, of which the first epoch was waited for
    assert inner["refine"].inner_state.inner[0].count == 9
    assert state.opt_state[1].count == 12
    first = theirs["optimizer_generator"]["state"][0]
    adam = inner["coarse"].inner_state[0]
    np.testing.assert_array_equal(adam.mu["coarse"]["first"]["conv"]["kernel"], first["exp_avg"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(
        adam.nu["coarse"]["first"]["conv"]["kernel"], first["exp_avg_sq"].transpose(2, 3, 1, 0)
    )


def test_import_export_import_is_the_identity(imported, tmp_path):
    path, run = imported
    export_checkpoint(run, tmp_path / "back.pth.tar")
    before, after = read_tensors(path), read_tensors(tmp_path / "back.pth.tar")
    assert list(before) == list(after)
    one, other = arrays(before), arrays(after)
    assert list(one) == list(other)
    for name, value in one.items():
        assert other[name].dtype == value.dtype, name
        np.testing.assert_array_equal(other[name], value, name)
    assert after["epoch"] == before["epoch"]
    import_checkpoint(tmp_path / "back.pth.tar", tmp_path / "again", small_config(), steps_per_epoch=3)
    assert_equal_trees(state_of(run), state_of(tmp_path / "again"))


def test_the_step_follows_adam_unless_the_epochs_disagree(tmp_path):
    path = released_file(tmp_path / "a.pth.tar")
    for given, step in ((3, 12), (4, 12), (5, 20), (None, 12)):
        import_checkpoint(path, tmp_path / str(given), small_config(), steps_per_epoch=given)
        assert load_run(tmp_path / str(given)).step == step
    with Checkpoints(tmp_path / "None", read_only=True) as checkpoints:
        assert checkpoints.info(12)["steps_per_epoch"] == 3


def test_data_parallel_names_and_a_file_without_optimiser_are_read(imported, tmp_path):
    def change(tree):
        for module in ("generator", "mask_generator"):
            tree[module] = {f"module.{name}": value for name, value in tree[module].items()}
            del tree[f"optimizer_{module}"]

    path = released_file(tmp_path / "a.pth.tar", change)
    said = import_checkpoint(path, tmp_path / "run", small_config())
    assert any("fresh optimiser" in line for line in said)
    state = state_of(tmp_path / "run")
    assert state.step == 0
    assert_equal_trees(state.params, state_of(imported[1]).params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.opt_state))


def test_the_optimiser_can_be_left(imported, tmp_path):
    import_checkpoint(imported[0], tmp_path / "run", small_config(), with_optimizer=False)
    assert state_of(tmp_path / "run").step == 0


# -- going on ------------------------------------------------------------------------------------------------------------------------------


def test_a_run_of_ours_comes_back_from_a_released_file_as_it_was_and_train_goes_on_from_it(tiny_shards, tmp_path):
    """Two steps into the first of its epochs, where r still waits: state bit for bit, so what follows is the same too."""
    config = small_config(tiny_shards)
    rng = np.random.default_rng(0)

    def noise(tree):
        return jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), tree)

    params, stats = (noise(part) for part in shapes())
    moments = {name: Moments(2, noise(tree), noise(tree)) for name, tree in params.items() if name != "refine"}
    opt_state = place_moments(build(config).optimizer(3).init(jax.tree.map(jnp.asarray, params)), moments, 2)
    state = TrainState(jnp.int32(2), params, stats, opt_state)
    claim_workdir(tmp_path / "ours", config)
    with Checkpoints(tmp_path / "ours") as checkpoints:
        checkpoints.save(state, {"steps_per_epoch": 3, "data_fingerprint": "known", "minutes": 1.0}, 0.5)
    said = export_checkpoint(tmp_path / "ours", tmp_path / "a.pth.tar")
    assert "zeros" in said[1]
    import_checkpoint(tmp_path / "a.pth.tar", tmp_path / "theirs", config, steps_per_epoch=3)
    config.optim.max_steps = 2  # nothing is left to do, so no step is compiled
    assert_equal_trees(state, train(config, tmp_path / "theirs"))
    assert any("converted" in str(line) for line in read_log(tmp_path / "theirs"))


def test_a_conversion_for_other_steps_of_an_epoch_is_not_trained(tiny_shards, tmp_path):
    config = small_config(tiny_shards)
    path = released_file(tmp_path / "a.pth.tar", updates=20)
    import_checkpoint(path, tmp_path / "run", config)
    with pytest.raises(UserError, match="--steps_per_epoch=3"):
        train(config, tmp_path / "run")


# -- refusals ------------------------------------------------------------------------------------------------------------------------------


def refused(tmp_path, match, path=None, change=lambda tree: None, **options):
    """Nothing is left behind by an import that is refused."""
    path = path or released_file(tmp_path / "wrong.pth.tar", change)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(UserError, match=match) as caught:
        import_checkpoint(path, tmp_path / "run", small_config(), **options)
    assert sorted(os.listdir(tmp_path)) == before
    return str(caught.value)


def test_missing_extra_and_misshapen_tensors_are_named_together(tmp_path):
    def change(tree):
        del tree["generator"]["first.conv.bias"], tree["mask_generator"]["ref.weight"]
        tree["generator"]["surplus"] = np.zeros(3, np.float32)
        tree["discriminator"] = {"conv.weight": np.zeros(3, np.float32)}
        tree["generator"]["final.bias"] = np.zeros(4, np.float32)
        tree["generator"]["ref.bias"] = np.zeros(1, np.int64)

    sentence = refused(tmp_path, "2 missing", change=change)
    for part in (
        "2 missing (generator.first.conv.bias, mask_generator.ref.weight)",
        "2 extra (generator.surplus, discriminator.conv.weight)",
        "2 misshapen (",
        "generator.ref.bias is of type int64",
        "generator.final.bias is (4,) instead of (3,)",
        "--config",
    ):
        assert part in sentence


def test_many_wrong_tensors_are_counted_and_a_dozen_named(tmp_path):
    sentence = refused(tmp_path, "missing", change=lambda tree: tree.pop("mask_generator"))
    missing = sum(name.startswith("mask_generator") for name in tensors(small_config()))
    assert f"{missing} missing" in sentence
    assert f"and {missing - 12} more" in sentence
    assert sentence.count("mask_generator.") == 12


def test_a_file_of_another_size_is_refused_by_shape(tmp_path):
    path = released_file(tmp_path / "wrong.pth.tar")
    config = small_config()
    config.fine.width = 8
    with pytest.raises(
        UserError, match=r"hourglass.encoder.down_blocks.0.conv.weight is \(8, 8, 3, 3\) instead of \(16, 8, 3, 3\)"
    ):
        import_checkpoint(path, tmp_path / "run", config)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda tree: tree["generator"]["final.bias"].fill(np.nan), "finite.*generator.final.bias"),
        (
            lambda tree: tree["mask_generator"].update({"down.weight": np.zeros((3, 1, 5, 5), np.float32)}),
            "constant.*down.weight",
        ),
        (lambda tree: tree.update(epoch="12"), "epoch"),
        (lambda tree: tree.update(epoch=-1), "epoch"),
        (lambda tree: tree.update(optimizer_generator=[1]), "no optimiser state"),
        (lambda tree: tree["optimizer_generator"]["param_groups"][0]["params"].pop(), "parameters that isn't Adam's"),
        (lambda tree: tree["optimizer_generator"]["state"][0].pop("exp_avg"), "parameters that isn't Adam's"),
        (lambda tree: tree["optimizer_generator"]["state"][0].update(step=3), "updated 3 and 12 times"),
        (
            lambda tree: tree["optimizer_generator"]["state"][0].update(step=float("nan")),
            "parameters that isn't Adam's",
        ),
    ],
)
def test_wrong_values_are_refused(tmp_path, change, match):
    sentence = refused(tmp_path, match, change=change)
    if "optim" in sentence or "updated" in sentence:
        assert "--without_optimizer" in sentence


def test_settings_that_the_released_code_lacks_are_refused(imported, tmp_path):
    config = small_config()
    config.mask.border = "same"
    with pytest.raises(UserError, match=r"mask\.border=same"):
        import_checkpoint(imported[0], tmp_path / "run", config)


def test_what_is_there_is_not_lost(imported, tmp_path):
    path, run = imported
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("mine")
    with pytest.raises(UserError, match="there already"):
        import_checkpoint(path, tmp_path / "taken", small_config())
    (tmp_path / "old.pth.tar").write_text("mine")
    with pytest.raises(UserError, match="there already"):
        export_checkpoint(run, tmp_path / "old.pth.tar")
    assert (tmp_path / "old.pth.tar").read_text() == "mine"


# -- strangers -----------------------------------------------------------------------------------------------------------------------------


class Hostile:
    """Unpickled, it would run a command that leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class Nested:
    """A call whose argument is the result of a call, deep in an innocent tree."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return eval, (f"[].__class__.__base__.__subclasses__() and open({str(self.path)!r}, 'w')",)


@pytest.mark.parametrize("hostile", [Hostile, Nested])
@pytest.mark.parametrize("place", ["top", "deep", "optimizer", "metadata"])
def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path, hostile, place):
    ran, path = tmp_path / "ran", tmp_path / "wrong.pth.tar"
    bad = hostile(ran)
    tree = {
        "top": bad,
        "deep": {"generator": {"first.conv.weight": [({"a": (bad,)},)]}},
        "optimizer": {"optimizer_generator": {"state": {0: {"step": bad}}}},
        "metadata": {"epoch": bad},
    }[place]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(tree, protocol=2))
        archive.writestr("archive/version", "3\n")
    refused(tmp_path, "wants to use (posix.system|__builtin__.eval|builtins.eval)", path)
    path.write_bytes(pickle.dumps(tree, protocol=2))  # a bare pickle is not even looked into
    refused(tmp_path, "complete PyTorch checkpoint", path)
    assert not ran.exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_truncated_file_is_a_sentence(tmp_path, share):
    path = released_file(tmp_path / "wrong.pth.tar")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(tmp_path, "download or copy it again", path)


def test_a_file_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path):
    path = tmp_path / "wrong.pth.tar"
    write_tensors(path, {"generator": {"first.conv.weight": np.zeros(20_000_000, np.float32)}})
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    assert path.stat().st_size < 1_000_000
    refused(tmp_path, "more memory than allowed", path)


# -- the writer ----------------------------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_back(tmp_path):
    numbers = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    tree = {
        "view": numbers.transpose(2, 0, 1)[1:],
        "kinds": {kind: np.arange(3).astype(kind) for kind in ("f8", "f2", "i8", "i4", "i2", "i1", "u1", "?")},
        "big_endian": numbers.astype(">f4"),
        "scalar": np.int64(7),
        "empty": np.zeros((0, 3), np.float32),
        3: [1, -1, 1 << 40, 2.5, True, False, None, ("ä", ())],
    }
    write_tensors(tmp_path / "a.pth", tree)
    got = read_tensors(tmp_path / "a.pth")
    assert list(got) == list(tree)
    np.testing.assert_array_equal(got["view"], tree["view"])
    np.testing.assert_array_equal(got["big_endian"], numbers)
    for kind, value in tree["kinds"].items():
        assert got["kinds"][kind].dtype == value.dtype
        np.testing.assert_array_equal(got["kinds"][kind], value)
    assert got["scalar"].shape == ()
    assert got["scalar"] == 7
    assert got["empty"].shape == (0, 3)
    assert got[3] == tree[3]


def test_what_has_no_place_in_a_checkpoint_is_not_written(tmp_path):
    for wrong in (object(), {1, 2}, np.array(["a"]), {2.5: 1}, b"bytes"):
        with pytest.raises(TypeError):
            write_tensors(tmp_path / "a.pth", {"a": wrong})
    assert not list(tmp_path.iterdir())


# -- the command ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--input=absent.pth.tar", "--output=run"], "absent.pth.tar can't be read"),
        (["--input=absent", "--to=torch", "--output=a.pth.tar"], "absent is not there"),
        (["--input=a", "--output=b", "--config=absent.py"], "--config=absent.py"),
        (["--input=a", "--output=b", "--config=configs/taichi.py:other"], "paper or released"),
        (["--input=a", "--output=b", "--steps_per_epoch=0"], "--steps_per_epoch=0"),
        (["--input=a", "--output=b", "--to=torch", "--without_optimizer"], "leave"),
    ],
)
def test_wrong_flags_are_a_sentence(tmp_path, monkeypatch, flags, match):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=match):
        convert.main(flags)
    assert not list(tmp_path.iterdir())


@needed
def test_released_weights_converted_animate_as_the_released_code_does(tmp_path):
    """The frames of the stored animation to one grey level, through the file, the two commands and png files."""
    from PIL import Image

    from maskanim_jax import animate

    tree = {
        module: {name: fill(f"{module}.{name}", tuple(shape)) for name, shape in keys()[module].items()}
        for module in ("generator", "mask_generator")
    }
    places = layout(convert.load_config(convert.DEFAULT_CONFIG))
    for module, state in tree.items():
        for name in state:
            if name.endswith(("num_batches_tracked", "down.weight")):  # not by the formula
                state[name] = places[f"{module}.{name}"].default
    write_tensors(tmp_path / "00-checkpoint.pth.tar", tree | {"epoch": 99})
    convert.main([f"--input={tmp_path / '00-checkpoint.pth.tar'}", f"--output={tmp_path / 'run'}"])
    stored, theirs = np.load(FOLDER / "frames.npz"), np.load(FOLDER / "pm_eval.npz")
    for name in ("s0", "s1", "d0", "d1"):
        Image.fromarray(stored[name]).save(tmp_path / f"{name}.png")
    for i in range(2):
        (tmp_path / f"driving{i}").mkdir()
        (tmp_path / f"d{i}.png").rename(tmp_path / f"driving{i}" / "0.png")
        files = [
            f"--source={tmp_path / f's{i}.png'}",
            f"--driving={tmp_path / f'driving{i}'}",
            f"--output={tmp_path / f'out{i}'}/",
        ]
        animate.main([f"--checkpoint={tmp_path / 'run'}", *files, "--threshold=60", "--mask_scale=1.0", "--batch=1"])
        frame = np.asarray(Image.open(next((tmp_path / f"out{i}").glob("*.png"))), np.float32)
        assert np.abs(frame - 255 * theirs["fine"][i].astype(np.float32)).max() <= 1
