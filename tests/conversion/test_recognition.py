"""Does `convert` recognise its input: every released config from names and shapes, other methods' files, and other kinds of files?"""

import gzip
import io
import json
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from parity import FOLDER
from released_files import arrays, assert_equal_trees, pm_file, released_file, shapes, small_config, state_of
from test_convert_fomm import tiny

from maskanim_jax import animate, convert
from maskanim_jax.conversion import cached, importing
from maskanim_jax.conversion.contents import _shape
from maskanim_jax.conversion.importing import import_checkpoint
from maskanim_jax.conversion.layout import UnmappedTensor, released
from maskanim_jax.conversion.recognition import recognize
from maskanim_jax.errors import UserError
from maskanim_jax.serialization.torch_writer import write_tensors
from maskanim_jax.workdir.config import read_config
from maskanim_jax.workdir.config_files import load_config

RELEASED = {
    "vox-cpk": "fomm_voxceleb",
    "vox-adv-cpk": "fomm_voxceleb_adv",
    "taichi-cpk": "fomm_taichi",
    "taichi-adv-cpk": "fomm_taichi_adv",
    "bair-cpk": "fomm_bair",
    "nemo-cpk": "fomm_nemo",
    "mgif-cpk": "fomm_mgif",
    "fashion": "fomm_fashion",
    "pm-taichi": "taichi:released",
    "pm-bair": "bair:released",
    "pm-vox": "voxceleb:released",
}


def tree_of(config, given=None):
    """The contents of a config's file; each tensor is a single broadcast zero, so that full sizes need no memory."""
    tree, like = {}, shapes(config)
    for name, at in released(config).layout(config, given).items():
        module, rest = name.split(".", 1)
        shape = at.default.shape if isinstance(at, UnmappedTensor) else _shape(at, like)
        tree.setdefault(module, {})[rest] = np.broadcast_to(np.float32(0), shape)
    return tree | {"epoch": 99}


def with_idle_discriminator(config):
    """The released code writes a discriminator with every file, whether or not it is trained."""
    critic = load_config("configs/fomm_fashion.py")
    return tree_of(config) | {"discriminator": tree_of(critic)["discriminator"]}


def animation_names(config):
    """The tensors that animation needs: all but the discriminator's."""
    return [name for name in released(config).layout(config) if not name.startswith("discriminator.")]


# -- released files ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RELEASED)
def test_every_released_file_is_recognised_with_its_config(name, tmp_path):
    config = load_config("configs/" + RELEASED[name].replace(":", ".py:"))
    tree = with_idle_discriminator(config) if name in ("vox-cpk", "taichi-cpk") else tree_of(config)
    found = recognize(tmp_path / f"{name}.pth.tar", tree)
    assert found.config.to_dict() == config.to_dict()
    found = recognize(tmp_path / "checkpoint.pth.tar", tree)  # the networks are recognised even without the hint
    assert animation_names(found.config) == animation_names(config)
    assert len(found.assumed) <= 1
    if name == "mgif-cpk":
        assert not found.assumed
    else:
        assert "--config=configs/" in found.assumed[0]


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the released implementation's names (../shared/parity) are not here")
def test_the_real_names_are_recognised(tmp_path):
    for file, name in (("fomm_keys.json", "fomm-voxceleb-adv"), ("pm_keys.json", "taichi")):
        real = json.loads((FOLDER / file).read_text())
        tree = {
            module: {key: np.broadcast_to(np.float32(0), shape) for key, shape in state.items()}
            for module, state in real.items()
            if module != "vgg19"
        }
        assert recognize(tmp_path / "a.pth.tar", tree).config.name == name
        tree = {m: {f"module.{key}": value for key, value in state.items()} for m, state in tree.items()}
        assert recognize(tmp_path / "a.pth.tar", tree).config.name == name


def test_a_discriminator_that_was_updated_is_trained_on(tmp_path):
    tree = with_idle_discriminator(load_config("configs/fomm_voxceleb.py"))
    tree["optimizer_discriminator"] = {"state": {}, "param_groups": []}
    assert recognize(tmp_path / "a.pth.tar", tree).config.name == "fomm-voxceleb"
    tree["optimizer_discriminator"] = {"state": {0: {"step": 3}}, "param_groups": []}
    assert recognize(tmp_path / "a.pth.tar", tree).config.name == "fomm-fashion"


@pytest.mark.parametrize(
    ("discriminator", "keypoints"),
    [("plain", {}), ("keypoints_in", {"jacobian": False}), ("spectral_norm", {"single_jacobian": True})],
)
@pytest.mark.slow
def test_sizes_of_networks_that_somebody_changed_are_read_from_the_file(tmp_path, discriminator, keypoints):
    config = tiny(discriminator, **keypoints)
    path = released_file(tmp_path / "a.pth.tar", config)
    said = import_checkpoint(path, tmp_path / "run", steps_per_epoch=3)
    assert any("checkpoint of FOMM" in line for line in said)
    found = read_config(tmp_path / "run")
    assert shapes(found) == shapes(config)
    assert_equal_trees(state_of(tmp_path / "run", found).step, 12)


def test_perturbed_masks_needs_no_config(tmp_path, capsys):
    path = pm_file(tmp_path / "vox-a.pth.tar")
    convert.main([f"--input={path}", f"--output={tmp_path / 'run'}"])
    assert "100 of 255" in capsys.readouterr().out
    config = read_config(tmp_path / "run")
    assert (config.name, config.perturb.test_threshold) == ("voxceleb", "100")
    assert config.mask.width == small_config().mask.width


def to_half(tree):
    for state in tree.values():
        if isinstance(state, dict):
            for name, value in state.items():
                if isinstance(value, np.ndarray) and value.dtype == np.float32:
                    state[name] = value.astype(np.float16)


def to_bfloat16(tree):
    """As the reader returns them: float32 whose lower half is zero."""
    for state in tree.values():
        if isinstance(state, dict):
            for name, value in state.items():
                if isinstance(value, np.ndarray) and value.dtype == np.float32:
                    state[name] = (value.view(np.uint32) & 0xFFFF0000).view(np.float32)


@pytest.mark.parametrize("change", [to_half, to_bfloat16])
@pytest.mark.slow
def test_half_precision_files_load(tmp_path, change):
    whole = released_file(tmp_path / "a.pth.tar", tiny())
    half = released_file(tmp_path / "b.pth.tar", tiny(), change)
    for path in (whole, half):
        import_checkpoint(path, tmp_path / path.name[0], tiny())
    one, other = (state_of(tmp_path / name, tiny()).params for name in "ab")
    one, other = arrays(one), arrays(other)
    assert other.keys() == one.keys()
    for name, value in one.items():
        assert other[name].dtype == np.float32
        np.testing.assert_allclose(other[name], value, rtol=2**-7)


# -- files of others -----------------------------------------------------------------------------------------------------------------------

ONE = np.zeros((1,), np.float32)
OTHERS = {
    "TPSMM": {
        "inpainting_network": {"a": ONE},
        "kp_detector": {"fg_encoder.conv1.weight": ONE},
        "bg_predictor": {"a": ONE},
    },
    "MRAA": {"generator": {"first.conv.weight": ONE}, "region_predictor": {"a": ONE}, "bg_predictor": {"a": ONE}},
    "face-vid2vid": {"generator": {"a": ONE}, "kp_detector": {"a": ONE}, "he_estimator": {"a": ONE}},
    "PyTorch Lightning": {"state_dict": {"model.a": ONE}, "pytorch-lightning_version": "2.0", "global_step": 3},
    "maskanim_jax.weights vgg19": {"features.0.weight": ONE},
    "one of the systems": {"net": {"a": ONE}},
    "missing": {"generator": {"dense_motion_network.mask.bias": ONE}, "kp_detector": {"kp.bias": ONE}},
}


@pytest.mark.parametrize("what", OTHERS)
def test_checkpoints_of_others_are_named(tmp_path, what):
    write_tensors(tmp_path / "a.pth.tar", OTHERS[what])
    refused(tmp_path, tmp_path / "a.pth.tar", what)
    if what not in ("one of the systems", "missing"):  # whatever config is given
        with pytest.raises(UserError, match=what):
            import_checkpoint(tmp_path / "a.pth.tar", tmp_path / "run", tiny())


class Hyper:
    """Like a Lightning file's hyperparameters: a class that only its writer has."""


def test_a_lightning_file_with_classes_in_it_is_named_and_not_run(tmp_path):
    path = tmp_path / "a.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "a/data.pkl", pickle.dumps({"pytorch-lightning_version": "2.1", "hyper_parameters": Hyper()}, protocol=2)
        )
    refused(tmp_path, path, "PyTorch Lightning")


def packed_tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(info := tarfile.TarInfo("vox-cpk.pth"), io.BytesIO(b"x" * info.size))
    return buffer.getvalue()


def packed_zip(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


FILES = {
    "LFS pointer to a file of 1,000 bytes": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1000\n",
    "web page .'Quota exceeded'": b"\n<!DOCTYPE html><html><head><title>Quota\nexceeded</title></head></html>",
    "begins with 'Entry not found'": b"Entry not found",
    "empty": b"",
    "safetensors": (b"\x40" + bytes(7) + b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}').ljust(80),
    "gzip": gzip.compress(b"x"),
    "tar archive around vox-cpk.pth": packed_tar(),
    "zip around weights/vox-cpk.pth.tar": packed_zip("weights/readme.txt", "weights/vox-cpk.pth.tar"),
    "zip of 1 files": packed_zip("a.txt"),
    "NumPy": packed_zip("a.npy"),
    "TorchScript": packed_zip("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(50),
    "ONNX": b"\x08\x08\x12\x07pytorch\x1a\x05" + bytes(range(128, 200)),
}


@pytest.mark.parametrize("what", FILES)
def test_what_is_no_checkpoint_is_named(tmp_path, what):
    (tmp_path / "a.pth.tar").write_bytes(FILES[what])
    refused(tmp_path, tmp_path / "a.pth.tar", what)


def test_folders_are_named(tmp_path):
    folder = tmp_path / "vox-cpk.pth"
    (folder / "archive").mkdir(parents=True)
    (folder / "archive" / "data.pkl").write_bytes(b"")
    refused(tmp_path, folder, "unpacked")
    with pytest.raises(UserError, match="unpacked"):
        cached.run_of(folder)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.pth.tar").write_bytes(b"")
    refused(tmp_path, tmp_path / "b", "such as .*a.pth.tar")


def refused(tmp_path, path, match):
    """One short sentence, and nothing left."""
    before = sorted(each.name for each in tmp_path.iterdir())
    with pytest.raises(UserError, match=match) as caught:
        convert.main([f"--input={path}", f"--output={tmp_path / 'run'}"])
    assert len(str(caught.value)) < 260 + len(str(path))
    assert sorted(each.name for each in tmp_path.iterdir()) == before


# -- a file as --checkpoint ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_animate_takes_a_file_and_converts_it_once(tmp_path, monkeypatch, capsys):
    from PIL import Image

    monkeypatch.setenv("MASKANIM_CACHE", str(tmp_path / "cache"))
    config = tiny(scale=0.5)
    config.motion.scale = 0.5
    path = released_file(tmp_path / "a.pth.tar", config)
    (tmp_path / "driving").mkdir()
    for name in ("s.png", "driving/0.png", "driving/1.png"):
        Image.new("RGB", (32, 32), (9, 99, 199)).save(tmp_path / name)
    flags = [f"--checkpoint={path}", f"--source={tmp_path / 's.png'}", f"--driving={tmp_path / 'driving'}", "--batch=2"]
    animate.main([*flags, f"--output={tmp_path / 'one'}/"])
    assert capsys.readouterr().err.count("was converted to the run") == 1
    assert len(list((tmp_path / "one").glob("*.png"))) == 2
    made = cached.run_of(path)
    assert capsys.readouterr().err == ""
    assert [each.name for each in (tmp_path / "cache" / "converted").iterdir()] == [made.name]
    (tmp_path / "b.pth.tar").write_bytes(b"<html></html>")
    with pytest.raises(UserError, match="web page"):
        animate.main([f"--checkpoint={tmp_path / 'b.pth.tar'}", *flags[1:], f"--output={tmp_path / 'two'}/"])


def test_two_conversions_at_once_leave_one_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKANIM_CACHE", str(tmp_path / "cache"))
    path = released_file(tmp_path / "a.pth.tar", tiny())
    original = importing.import_checkpoint

    def slower(*args, **options):
        """Another process finishes while this one converts."""
        monkeypatch.setattr(importing, "import_checkpoint", original)
        first.append(cached.run_of(path))
        return original(*args, **options)

    first = []
    monkeypatch.setattr(importing, "import_checkpoint", slower)
    assert cached.run_of(path) == first[0]
    assert [each.name for each in (tmp_path / "cache" / "converted").iterdir()] == [first[0].name]
