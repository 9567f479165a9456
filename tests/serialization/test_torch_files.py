"""Is a PyTorch checkpoint read completely without PyTorch, and is every hostile or damaged one refused before anything runs?"""

import collections
import io
import os
import pickle
import struct
import sys
import types
import zipfile
from typing import NamedTuple

import numpy as np
import pytest

from maskanim_jax.errors import UserError
from maskanim_jax.serialization.torch_reader import MAX_BYTES, read_tensors

KINDS = {
    "f4": "FloatStorage",
    "f8": "DoubleStorage",
    "f2": "HalfStorage",
    "i8": "LongStorage",
    "u2": "BFloat16Storage",
}


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
    assert not marker.exists()


def test_a_bare_pickle_named_pth_is_refused_and_nothing_runs(tmp_path):
    path, marker = tmp_path / "bare.pth", tmp_path / "ran"
    path.write_bytes(pickle.dumps({"weight": Hostile(marker)}))
    with pytest.raises(UserError, match=r"bare\.pth"):
        read_tensors(path)
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
