"""How is a file written atomically, and what is its hash?"""

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
    """Yields a temporary path beside `path`.

    It replaces `path` when the block succeeds and is removed when it raises. Raises OSError.
    """
    # Not the process id: two machines that share a disk may have the same one.
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
