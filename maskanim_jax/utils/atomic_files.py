"""How is a file written so that it is whole or as it was before, and what is its hash?"""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from maskanim_jax.utils.paths import hidden_beside


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to: it takes `path`'s place when the block ends well, and is removed when not. Raises OSError."""
    # Not a process' number: on a disk that machines share two of them may have the same.
    temporary = hidden_beside(path, uuid.uuid4().hex[:12])
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 lower-case hex digits. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
