"""Is a released FOMM checkpoint converted to a run and back unchanged: with and without discriminator, spectral norm, one Jacobian map?"""

import json

import fomm_parity
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import FOLDER, needed
from PIL import Image
from released_files import assert_equal_files, assert_equal_trees, released_file, shapes, small_config, state_of

from configs import fomm_mgif, fomm_puppets, fomm_voxceleb, fomm_voxceleb_adv
from maskanim_jax import animate, convert
from maskanim_jax.checkpoints.loading import load_run
from maskanim_jax.checkpoints.manager import CheckpointManager
from maskanim_jax.conversion.adam_state import Moments, place_moments
from maskanim_jax.conversion.contents import _shape
from maskanim_jax.conversion.exporting import export_checkpoint
from maskanim_jax.conversion.fomm import layout
from maskanim_jax.conversion.importing import import_checkpoint
from maskanim_jax.conversion.layout import UnmappedTensor
from maskanim_jax.errors import UserError
from maskanim_jax.serialization.torch_reader import read_tensors
from maskanim_jax.serialization.torch_writer import write_tensors
from maskanim_jax.systems import build
from maskanim_jax.systems.train_state import TrainState
from maskanim_jax.workdir.config import read_config, write_config

pytestmark = pytest.mark.slow

DISCRIMINATOR = {
    "plain": {},
    "with_discriminator": {"enabled": True},
    "keypoints_in": {"enabled": True, "keypoints": True},
    "spectral_norm": {"enabled": True, "spectral_norm": True},
}


def tiny(discriminator="plain", **keypoints):
    """Nets of a few thousand numbers in the released form."""
    c = fomm_puppets.get_config()
    c.frame_size = 64
    c.keypoints.update({"num_keypoints": 3, "width": 4, "num_blocks": 2, "max_width": 8, "scale": 0.25, **keypoints})
    c.motion.update({"width": 4, "num_blocks": 2, "max_width": 8, "scale": 0.25})
    c.generator.update({"width": 4, "max_width": 8, "residual_blocks": 1})
    c.discriminator.update({"width": 2, "max_width": 8, "num_blocks": 2, **DISCRIMINATOR[discriminator]})
    return c


# -- the names -----------------------------------------------------------------------------------------------------------------------------


@needed
@pytest.mark.parametrize("change", ["vox-adv", "mgif", "identity", "plain"])
def test_names_shapes_and_order_are_those_of_the_released_file(change):
    """fomm_keys.json is vox-adv's; mgif has four Jacobian channels, a config without adversarial loss no discriminator of its own."""
    theirs = json.loads((FOLDER / "fomm_keys.json").read_text())
    wanted = ["generator", "kp_detector"] + (["discriminator"] if change != "plain" else [])
    config = fomm_voxceleb.get_config() if change == "plain" else fomm_voxceleb_adv.get_config()
    if change == "mgif":
        config.keypoints.single_jacobian = True
        theirs["kp_detector"] |= {"jacobian.weight": [4, 35, 7, 7], "jacobian.bias": [4]}
    if change == "identity":
        config.keypoints.jacobian = False
        del theirs["kp_detector"]["jacobian.weight"], theirs["kp_detector"]["jacobian.bias"]
    like = shapes(config)
    ours = {name: list(_shape(at, like)) for name, at in layout(config).items()}
    listed = {f"{m}.{name}": shape for m in wanted for name, shape in theirs[m].items()}
    assert list(ours.items()) == list(listed.items())


def test_spectral_norm_has_the_names_of_torch():
    names = [name for name in layout(fomm_mgif.get_config()) if ".down_blocks.1.conv." in name and "discs" in name]
    assert [name.rsplit(".", 1)[1] for name in names] == ["bias", "weight_orig", "weight_u", "weight_v"]
    assert "discriminator.discs.1.conv.weight_orig" in layout(fomm_mgif.get_config())


@pytest.mark.parametrize("discriminator", DISCRIMINATOR)
def test_every_variable_of_ours_is_in_the_file(discriminator):
    config = tiny(discriminator)
    ours = [at.path for at in layout(config).values() if hasattr(at, "path")]
    assert len(ours) == len(set(ours)) or discriminator == "plain"
    assert len(ours) == len(jax.tree.leaves(shapes(config)))


# -- there and back ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("discriminator", "keypoints"),
    [
        ("plain", {}),
        ("with_discriminator", {"single_jacobian": True}),
        ("keypoints_in", {"jacobian": False}),
        ("spectral_norm", {}),
    ],
)
def test_import_export_is_the_identity(tmp_path, discriminator, keypoints):
    config = tiny(discriminator, **keypoints)
    path = released_file(tmp_path / "a.pth.tar", config)
    said = import_checkpoint(path, tmp_path / "run", config, steps_per_epoch=3)
    export_checkpoint(tmp_path / "run", tmp_path / "b.pth.tar")
    assert_equal_files(read_tensors(path), read_tensors(tmp_path / "b.pth.tar"))
    assert any("--config.align_corners=True" in line for line in said)
    state = state_of(tmp_path / "run", config)
    theirs = read_tensors(path)["generator"]["dense_motion_network.hourglass.decoder.up_blocks.0.conv.weight"]
    ours = state.params["generator"]["dense_motion"]["body"]["up1"]["conv"]["kernel"]
    np.testing.assert_array_equal(ours, theirs.transpose(2, 3, 1, 0))


def test_published_files_are_sampled_corner_aligned_unless_the_config_shall_stay(tmp_path):
    config = tiny()
    path = released_file(tmp_path / "a.pth.tar", config)
    import_checkpoint(path, tmp_path / "published", config)
    assert read_config(tmp_path / "published").align_corners is True
    assert load_run(tmp_path / "published").config.align_corners is True
    assert config.align_corners is False  # the caller's own is not changed
    said = import_checkpoint(path, tmp_path / "as_config", config, as_published=False)
    assert read_config(tmp_path / "as_config").align_corners is False
    assert not any("corner" in line for line in said)


def test_a_discriminator_that_the_config_does_not_train_is_kept_for_the_way_back(tmp_path):
    """The released code writes a discriminator and its untouched optimiser with every file."""
    path = released_file(
        tmp_path / "a.pth.tar",
        tiny("spectral_norm"),
        lambda tree: tree["optimizer_discriminator"]["state"].clear(),
    )
    import_checkpoint(path, tmp_path / "run", tiny(), steps_per_epoch=3)
    assert "discriminator" not in state_of(tmp_path / "run", tiny()).params
    export_checkpoint(tmp_path / "run", tmp_path / "b.pth.tar")
    assert_equal_files(read_tensors(path), read_tensors(tmp_path / "b.pth.tar"))


def test_a_file_without_discriminator_begins_one_afresh(tmp_path):
    config = tiny("keypoints_in")
    path = released_file(tmp_path / "a.pth.tar", config, lambda tree: tree.pop("discriminator"))
    said = import_checkpoint(path, tmp_path / "run", config, steps_per_epoch=3)
    assert any("no discriminator" in line for line in said)
    state = state_of(tmp_path / "run", config)
    fresh = jax.jit(lambda: build(config).init(jax.random.key(config.seed)).params["discriminator"])()
    assert_equal_trees(state.params["discriminator"], fresh)
    assert state.step == 12
    inner = state.opt_state[0].inner_states
    assert (inner["generator"].inner_state[0].count, inner["discriminator"].inner_state[0].count) == (12, 0)


def test_a_run_of_ours_comes_back_from_a_released_file_as_it_was(tmp_path):
    config = tiny("spectral_norm")
    rng = np.random.default_rng(0)

    def noise(tree):
        return jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), tree)

    params, stats = (noise(part) for part in shapes(config))
    moments = {name: Moments(5, noise(tree), noise(tree)) for name, tree in params.items()}
    opt_state = place_moments(build(config).optimizer(5).init(jax.tree.map(jnp.asarray, params)), moments, 5)
    state = TrainState(jnp.int32(5), params, stats, opt_state)
    write_config(tmp_path / "ours", config)
    with CheckpointManager(tmp_path / "ours") as checkpoints:
        checkpoints.save(state, {"steps_per_epoch": 5, "data_fingerprint": "known", "minutes": 1.0}, 0.5)
    export_checkpoint(tmp_path / "ours", tmp_path / "a.pth.tar")
    import_checkpoint(tmp_path / "a.pth.tar", tmp_path / "theirs", config, steps_per_epoch=5, as_published=False)
    assert_equal_trees(state, state_of(tmp_path / "theirs", config))


# -- refusals ------------------------------------------------------------------------------------------------------------------------------


def test_a_file_of_the_other_system_or_another_form_is_refused_by_name(tmp_path):
    path = released_file(tmp_path / "a.pth.tar", tiny(single_jacobian=True))
    with pytest.raises(UserError, match=r"kp_detector\.jacobian\.bias is \(4,\) instead of \(12,\)"):
        import_checkpoint(path, tmp_path / "run", tiny())
    with pytest.raises(
        UserError, match=r"78 missing \(generator\.hourglass\..*66 extra \(generator\.dense_motion_network\..*--config"
    ):
        import_checkpoint(path, tmp_path / "run", small_config())
    config = tiny()
    config.motion.variance = 0.02
    with pytest.raises(UserError, match=r"motion\.variance=0\.02"):
        import_checkpoint(path, tmp_path / "run", config)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth.tar"]


# -- use -----------------------------------------------------------------------------------------------------------------------------------


@needed
def test_released_weights_converted_animate_as_the_released_code_does(tmp_path):
    """To one grey level of the corner-aligned prediction, through the file, the two commands and png files."""
    formula, theirs = fomm_parity.formula_tensors(), np.load(FOLDER / "fomm_eval_align_corners.npz")["prediction"][0]
    tree = {"generator": {}, "kp_detector": {}}
    for name, at in layout(fomm_voxceleb.get_config()).items():
        module, rest = name.split(".", 1)
        tree[module][rest] = at.default if isinstance(at, UnmappedTensor) else formula[name]
    write_tensors(tmp_path / "vox-cpk.pth.tar", tree | {"epoch": 99})
    flags = [
        f"--input={tmp_path / 'vox-cpk.pth.tar'}",
        f"--output={tmp_path / 'run'}",
        "--config=configs/fomm_voxceleb.py",
    ]
    convert.main(flags)
    stored = np.load(FOLDER / "frames.npz")
    (tmp_path / "driving").mkdir()
    Image.fromarray(stored["s0"]).save(tmp_path / "s0.png")
    Image.fromarray(stored["d0"]).save(tmp_path / "driving" / "0.png")
    files = [f"--source={tmp_path / 's0.png'}", f"--driving={tmp_path / 'driving'}", f"--output={tmp_path / 'out'}/"]
    animate.main([f"--checkpoint={tmp_path / 'run'}", *files, "--motion=absolute", "--batch=1"])
    frame = np.asarray(Image.open(next((tmp_path / "out").glob("*.png"))), np.float32)
    assert np.abs(frame - 255 * theirs.astype(np.float32)).max() <= 1
    other = np.load(FOLDER / "fomm_eval.npz")["prediction"][0]
    assert np.abs(frame - 255 * other.astype(np.float32)).max() > 1
