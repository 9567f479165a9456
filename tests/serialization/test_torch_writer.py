"""Are written checkpoints read back unchanged, and are unsupported values refused?"""

import numpy as np
import pytest

from maskanim_jax.serialization.torch_reader import read_tensors
from maskanim_jax.serialization.torch_writer import write_tensors


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
