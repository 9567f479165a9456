"""Which processes may join a run? Those that answer a random challenge with the run's
secret, which is never sent.

Both sides are challenged: process 0 must also know the secret. If JAX finds the processes, process
0 draws a secret and JAX's key-value store passes it on. Otherwise it comes from an environment
variable or from a file in the user's cache that only the user can read.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from maskanim_jax.errors import UserError
from maskanim_jax.utils.cache import default_cache

SECRET = "MASKANIM_DISTRIBUTED_SECRET"
"""Environment variable: the same value in all processes of a run, if they do
not share a home folder.
"""
SHORTEST = 16
"""Minimum length of a secret."""


def drawn() -> str:
    """A new random secret or challenge."""
    return secrets.token_hex(32)


def run_secret() -> str:
    """MASKANIM_DISTRIBUTED_SECRET, else the secret in the user's cache, created at
    first use; raises UserError.
    """
    given = os.environ.get(SECRET)
    if given is None:
        return _of_user(default_cache() / "distributed_secret")
    if len(given) < SHORTEST:
        raise UserError(f"{SECRET} must have at least {SHORTEST} characters: create one with `openssl rand -hex 32`")
    return given


def _of_user(path: Path) -> str:
    hint = f"give a secret in {SECRET} to all processes"
    try:
        if not path.exists():
            _write(path)
        about = path.stat()
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise UserError(f"{path} can't be read or created ({error.strerror}): {hint}") from error
    if about.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or about.st_uid != os.getuid() or len(text) < SHORTEST:
        raise UserError(f"{path} is not a secret that only this user can read: delete it, or {hint}")
    return text


def _write(path: Path) -> None:
    """Writes a new secret atomically, unreadable for others; among several
    processes, the first one wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(drawn() + "\n")
        with contextlib.suppress(FileExistsError):
            os.link(part, path)
    finally:
        part.unlink(missing_ok=True)


def answer(secret: str, *said: str) -> str:
    """The HMAC-SHA-256 of the parts, which have no line breaks, with the secret as key."""
    return hmac.new(secret.encode(), "\n".join(said).encode(), hashlib.sha256).hexdigest()


def right(found: object, secret: str, *said: str) -> bool:
    """Whether `found` is the right answer, compared in constant time."""
    return isinstance(found, str) and hmac.compare_digest(found.encode(), answer(secret, *said).encode())
