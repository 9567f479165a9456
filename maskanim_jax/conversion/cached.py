"""What happens when `--checkpoint` is a PyTorch file of the released code?

It is converted once and cached.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import uuid
from pathlib import Path

from maskanim_jax.conversion.foreign import refuse_foreign
from maskanim_jax.errors import UserError
from maskanim_jax.utils.atomic_files import sha256_of

VERSION = 1
"""Part of the folder's name: increase it when conversion produces different results."""


def run_of(path: Path) -> Path:
    """`path` itself if it is not a file; otherwise the cached workdir that the file was converted
    to.

    Converts the file if it is not cached yet, and prints one line about it to stderr. Two processes
    may do so at once: the result of the first to finish is kept. Raises the UserErrors of
    `convert`, and one for a folder that is an unpacked file.
    """
    if path.is_dir() and any((inner / "data.pkl").is_file() for inner in (path, path / "archive")):
        refuse_foreign(path)
    if not path.is_file():
        return path
    from maskanim_jax.conversion.importing import import_checkpoint
    from maskanim_jax.utils.cache import default_cache

    refuse_foreign(path)
    folder = default_cache() / "converted"
    try:
        # The name hints at the data set; the hash tells files of the same name apart.
        target = folder / f"{path.name.split('.')[0][:40]}-{sha256_of(path)[:24]}-{VERSION}"
        if (target / "config.json").is_file():
            return target
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{path} can't be converted into {folder} ({error.strerror}): set MASKANIM_CACHE to a writable folder, or run "
            f"`python -m maskanim_jax.convert --input={path} --output=WORKDIR`"
        ) from error
    made = folder / f"{target.name}.{uuid.uuid4().hex[:12]}.part"
    logging.getLogger("absl").setLevel(logging.ERROR)  # hides Orbax's progress messages
    try:
        said = import_checkpoint(path, made, with_optimizer=False)
        with contextlib.suppress(OSError):  # another process was faster; its result is the same
            os.rename(made, target)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    what = "; ".join(message.removeprefix(f"{path.name} is ") for message in said[1:-1])
    print(f"{path} was converted to the run {target}: {what}", file=sys.stderr)
    return target
