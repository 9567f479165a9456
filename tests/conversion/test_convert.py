"""Is a released checkpoint converted to a run, and a run to a released checkpoint, unchanged?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import FOLDER, fill, keys, needed
from released_files import assert_equal_files, assert_equal_trees, pm_file, shapes, small_config, state_of

from maskanim_jax import convert
from maskanim_jax.checkpoints.loading import load_run
from maskanim_jax.checkpoints.manager import CheckpointManager
from maskanim_jax.conversion.adam_state import Moments, place_moments
from maskanim_jax.conversion.contents import _shape
from maskanim_jax.conversion.exporting import export_checkpoint
from maskanim_jax.conversion.importing import import_checkpoint
from maskanim_jax.conversion.perturbed_masks import layout, tensors
from maskanim_jax.errors import UserError
from maskanim_jax.serialization.torch_reader import read_tensors
from maskanim_jax.serialization.torch_writer import write_tensors
from maskanim_jax.systems import build
from maskanim_jax.systems.train_state import TrainState
from maskanim_jax.training.loop import train
from maskanim_jax.workdir.config import write_config
from maskanim_jax.workdir.logs import read_log

pytestmark = pytest.mark.slow

# -- the names -----------------------------------------------------------------------------------------------------------------------------


@needed
def test_names_shapes_and_order_are_those_of_the_released_file():
    config = convert.load_config("configs/taichi.py:released")
    like = jax.eval_shape(build(config).init, jax.random.key(0))
    ours = {name: list(_shape(at, like)) for name, at in layout(config).items()}
    theirs = {f"{m}.{name}": shape for m in ("generator", "mask_generator") for name, shape in keys()[m].items()}
    assert list(ours.items()) == list(theirs.items())


def test_every_variable_of_ours_is_in_the_file():
    assert len(tensors(small_config())) == len(jax.tree.leaves(shapes(small_config())))


# -- there and back ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("convert")
    path = pm_file(folder / "07-checkpoint.pth.tar")
    import_checkpoint(path, folder / "run", small_config(), steps_per_epoch=3)
    return path, folder / "run"


def test_import_places_tensors_moments_and_counts(imported):
    theirs, state = read_tensors(imported[0]), state_of(imported[1], small_config())
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
    assert_equal_files(before, after)
    import_checkpoint(tmp_path / "back.pth.tar", tmp_path / "again", small_config(), steps_per_epoch=3)
    assert_equal_trees(state_of(run, small_config()), state_of(tmp_path / "again", small_config()))


def test_the_step_follows_adam_unless_the_epochs_disagree(tmp_path):
    path = pm_file(tmp_path / "a.pth.tar")
    for given, step in ((3, 12), (4, 12), (5, 20), (None, 12)):
        import_checkpoint(path, tmp_path / str(given), small_config(), steps_per_epoch=given)
        assert load_run(tmp_path / str(given)).step == step
    with CheckpointManager(tmp_path / "None", read_only=True) as checkpoints:
        assert checkpoints.info(12)["steps_per_epoch"] == 3


def test_data_parallel_names_and_a_file_without_optimiser_are_read(imported, tmp_path):
    def change(tree):
        for module in ("generator", "mask_generator"):
            tree[module] = {f"module.{name}": value for name, value in tree[module].items()}
            del tree[f"optimizer_{module}"]

    path = pm_file(tmp_path / "a.pth.tar", change)
    said = import_checkpoint(path, tmp_path / "run", small_config())
    assert any("fresh optimiser" in line for line in said)
    state = state_of(tmp_path / "run", small_config())
    assert state.step == 0
    assert_equal_trees(state.params, state_of(imported[1], small_config()).params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.opt_state))


def test_the_optimiser_can_be_left(imported, tmp_path):
    import_checkpoint(imported[0], tmp_path / "run", small_config(), with_optimizer=False)
    assert state_of(tmp_path / "run", small_config()).step == 0


# -- resuming ------------------------------------------------------------------------------------------------------------------------------


def test_a_run_of_ours_comes_back_from_a_released_file_as_it_was_and_train_goes_on_from_it(tiny_shards, tmp_path):
    """Two steps into the first epoch, before r starts: the state is equal bit for bit, so all later steps are, too."""
    config = small_config(tiny_shards)
    rng = np.random.default_rng(0)

    def noise(tree):
        return jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), tree)

    params, stats = (noise(part) for part in shapes(small_config()))
    moments = {name: Moments(2, noise(tree), noise(tree)) for name, tree in params.items() if name != "refine"}
    opt_state = place_moments(build(config).optimizer(3).init(jax.tree.map(jnp.asarray, params)), moments, 2)
    state = TrainState(jnp.int32(2), params, stats, opt_state)
    write_config(tmp_path / "ours", config)
    with CheckpointManager(tmp_path / "ours") as checkpoints:
        checkpoints.save(state, {"steps_per_epoch": 3, "data_fingerprint": "known", "minutes": 1.0}, 0.5)
    said = export_checkpoint(tmp_path / "ours", tmp_path / "a.pth.tar")
    assert "zeros" in said[1]
    import_checkpoint(tmp_path / "a.pth.tar", tmp_path / "theirs", config, steps_per_epoch=3)
    config.optim.max_steps = 2  # the run is complete, so no step is compiled
    assert_equal_trees(state, train(config, tmp_path / "theirs"))
    assert any("converted" in str(line) for line in read_log(tmp_path / "theirs"))


def test_a_conversion_for_other_steps_of_an_epoch_is_not_trained(tiny_shards, tmp_path):
    config = small_config(tiny_shards)
    path = pm_file(tmp_path / "a.pth.tar", updates=20)
    import_checkpoint(path, tmp_path / "run", config)
    with pytest.raises(UserError, match="--steps_per_epoch=3"):
        train(config, tmp_path / "run")


# -- the command ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--input=absent.pth.tar", "--output=run"], "absent.pth.tar can't be read"),
        (["--input=absent", "--to=torch", "--output=a.pth.tar"], "absent is not a folder"),
        (["--input=a", "--output=b", "--config=absent.py"], "--config=absent.py"),
        (["--input=a", "--output=b", "--config=configs/taichi.py:other"], "paper or released"),
        (["--input=a", "--output=b", "--steps_per_epoch=0"], "--steps_per_epoch=0"),
        (["--input=a", "--output=b", "--to=torch", "--without_optimizer"], "omit"),
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
    places = layout(convert.load_config("configs/taichi.py:released"))
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
