"""What is a file that is not a checkpoint of the systems here?

Its content tells, and an error says what to do.
"""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from maskanim_jax.errors import UserError, check_regular

_START = 4096  # bytes that are inspected
_CHECKPOINTS = (".pth", ".pt", ".tar", ".ckpt", ".pkl", ".bin", ".safetensors")
_PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\x00": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"7z\xbc\xaf\x27\x1c": ("7-Zip", "7z x"),
    b"Rar!": ("RAR", "unrar x"),
}
_ORIGINAL = "give the .pth.tar file that PyTorch saved"

_METHODS: tuple[tuple[str, Callable[[frozenset[str]], bool]], ...] = (
    ("Thin-Plate-Spline Motion Model (TPSMM)", lambda names: "inpainting_network" in names),
    ("Articulated Animation (MRAA)", lambda names: "region_predictor" in names),
    ("face-vid2vid", lambda names: "he_estimator" in names),
    ("Monkey-Net", lambda names: any(name.startswith("dense_motion_module.") for name in names)),
    ("LIA", lambda names: {"gen", "dis"} <= names),
)


def refuse_foreign(path: Path) -> None:
    """Raises UserError when the file (or folder) at `path` is known not to be a PyTorch checkpoint.

    A path that is missing, unreadable or perhaps a PyTorch checkpoint passes: reading it gives the
    better error.
    """
    try:
        check_regular(path)
        what = _folder(path) if path.is_dir() else _file(path)
    except (OSError, ValueError, zipfile.BadZipFile, tarfile.TarError, RuntimeError, NotImplementedError):
        return
    if what:
        raise UserError(f"{path} is {what}")


def method_of(names: frozenset[str]) -> str | None:
    """The rest of the sentence about a checkpoint of another method or trainer, recognised by the
    names in it; None if unknown.
    """
    for method, has in _METHODS:
        if has(names):
            return (
                f"is a checkpoint of {method}, which is not one of the systems here: "
                "animate with that method's own code, or give a checkpoint of FOMM or Perturbed Masks"
            )
    if any("lightning" in name for name in names) or {"state_dict", "global_step"} <= names:
        return (
            "is a checkpoint of PyTorch Lightning, which names the tensors differently: save the state_dict of each module "
            "(generator, kp_detector, ...) in a dict with torch.save and give that"
        )
    if "features.0.weight" in names:
        return "is torchvision's VGG: give it to `python -m maskanim_jax.weights vgg19 --input=FILE`"
    return None


def _folder(path: Path) -> str | None:
    for inner in (path, *(each for each in sorted(path.iterdir())[:50] if each.is_dir())):
        if (inner / "data.pkl").is_file():
            return (
                "a PyTorch checkpoint that was unpacked into a folder, but PyTorch reads the zip file itself: "
                "download it again and do not unpack it"
            )
    if (path / "config.json").is_file() and (path / "checkpoints").is_dir():
        return "already a run of this project: give it to animate as --checkpoint, without converting"
    files = [each.name for each in sorted(path.iterdir()) if each.suffix in _CHECKPOINTS]
    return f"a folder: give the checkpoint file itself{f', such as {path / files[0]}' if files else ''}"


def _file(path: Path) -> str | None:
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(_START)
    if not size:
        return "empty: download or copy it again"
    for packed, (name, command) in _PACKED.items():
        if start.startswith(packed):
            return f"packed with {name}: unpack it (`{command}`) and give the file inside"
    if start.startswith(b"PK\x03\x04"):
        return _zip(path)
    if start[257:262] == b"ustar":
        return _tar(path)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return f"an HDF5 file (Keras or similar), not the checkpoint of the authors' code: {_ORIGINAL}"
    if _is_safetensors(start, size):
        return f"a safetensors file, not the checkpoint of the authors' code: {_ORIGINAL}"
    if path.suffix.lower() == ".onnx" or (start[:1] == b"\x08" and re.search(rb"pytorch|onnx", start[:64], re.I)):
        return f"an ONNX model, which cannot be converted to a run: {_ORIGINAL}"
    return _text(start, size)


def _zip(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.startswith("__MACOSX")]
    bases = [name.rpartition("/")[2] for name in names]
    if "constants.pkl" in bases and any("code/" in name for name in names):
        return f"a TorchScript model, which is a program: {_ORIGINAL}"
    if "data.pkl" in bases:
        return None
    if names and all(name.endswith((".npy", "/")) for name in names):
        return f"a NumPy archive (.npz): {_ORIGINAL}"
    inside = next((name for name in names if name.endswith(_CHECKPOINTS)), None)
    if inside:
        return f"a zip around {inside}: unzip it and give that file"
    return f"a zip of {len(names)} files without a checkpoint: {_ORIGINAL}"


def _tar(path: Path) -> str:
    with tarfile.open(path) as archive:
        names = [member.name for _, member in zip(range(50), archive, strict=False)]
    inside = next((name for name in names if name.endswith(_CHECKPOINTS)), None)
    if {"sys_info", "pickle"} <= set(names):
        return "in PyTorch's format from before 2018: load it with an old PyTorch and save it again"
    return f"a tar archive{f' around {inside}' if inside else ''}: unpack it (`tar xf`) and give the checkpoint file inside"


def _is_safetensors(start: bytes, size: int) -> bool:
    """Whether the file starts with eight bytes for the header's length, then the header in JSON."""
    return len(start) > 9 and int.from_bytes(start[:8], "little") <= size - 8 and start[8:9] == b"{"


def _text(start: bytes, size: int) -> str | None:
    if start.startswith(b"version https://git-lfs"):
        stands = re.search(rb"\nsize (\d{1,15})", start)
        of = f" of {int(stands[1]):,} bytes" if stands else ""
        return f"a Git LFS pointer to a file{of}: run `git lfs pull` in its repository, or download the file itself"
    if re.match(rb"\s*(<!doctype html|<html|<\?xml|<head|<body|<!--)", start.removeprefix(b"\xef\xbb\xbf"), re.I):
        found = re.search(rb"<title[^>]*>(.*?)</title>", start, re.I | re.S)
        title = " ".join(found[1].decode("utf-8", "replace").split())[:80] if found else ""
        shown = f" ('{title}')" if title else ""
        return f"a web page{shown} that was saved instead of the file: download the checkpoint itself, with a browser if the site asks you to sign in"
    try:
        text = start.decode("utf-8", "strict" if size <= _START else "ignore")
    except UnicodeDecodeError:
        return None
    if "\0" in text or not all(c.isprintable() or c.isspace() for c in text):
        return None
    return f"a text file that begins with '{' '.join(text.split())[:60]}': download the checkpoint itself"
