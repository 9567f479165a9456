"""Which local folder represents a path that may be in a bucket? For a local path, the path
itself; nothing is imported.

A folder in a bucket gets a local working copy (see working_copy.py), which all other
code uses like any folder.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from maskanim_jax.buckets.address import address_of
from maskanim_jax.errors import UserError

if TYPE_CHECKING:
    from maskanim_jax.buckets.checkpoints import RemoteCheckpoints
    from maskanim_jax.buckets.working_copy import WorkingCopy

Function = TypeVar("Function", bound=Callable[..., Any])


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], training: bool = False) -> Iterator[Path]:
    """Yields a local folder to use in place of `path`: `path` itself, or the working copy
    of an address in a bucket.

    Changes are uploaded at the end of the block, also after an error. `training` takes the bucket's
    lock. With several processes, all leave the block together, so that the next command finds
    everything that process 0 wrote. Raises UserError if the bucket is missing, refuses the
    credentials or cannot be reached, or if another process trains there.
    """
    address = address_of(path)
    if address is None:
        yield Path(path)
        return
    from maskanim_jax.buckets import working_copy

    with working_copy.opened(address, training) as folder:
        yield folder


def fetched(path: str | os.PathLike[str], may_lack: bool = False) -> Path:
    """A local folder with the contents of `path`, for reading until the process ends. `path` may be
    WORKDIR/checkpoints/STEP in a bucket.

    Raises UserError like `opened`, and for an empty folder in a bucket unless `may_lack`.
    """
    address = address_of(path)
    if address is None:
        return Path(path)
    from maskanim_jax.buckets import working_copy

    return working_copy.fetched(address, may_lack)


def fetched_file(path: str | os.PathLike[str], name: str) -> Path:
    """The folder `path`; for an address in a bucket, a local folder that
    only has the file `name`.
    """
    address = address_of(path)
    if address is None:
        return Path(path)
    from maskanim_jax.buckets import working_copy

    return working_copy.fetched_file(address, name)


def copy_of(folder: Path) -> WorkingCopy | None:
    """The working copy that is, or contains, a local folder; None for all other folders."""
    module = sys.modules.get("maskanim_jax.buckets.working_copy")
    return None if module is None else module.copy_of(folder)


def remote_checkpoints(workdir: Path) -> RemoteCheckpoints | None:
    """The checkpoints in the bucket of a run's working copy; None for a local run."""
    copy = copy_of(workdir)
    return None if copy is None else copy.checkpoints_of(workdir.absolute())


def in_words(folder: Path) -> str:
    """A path as the user gave it: the address in the bucket for a path in a working copy."""
    copy = copy_of(folder)
    return str(folder) if copy is None else copy.in_words(str(folder.absolute()))


@contextlib.contextmanager
def naming_addresses() -> Iterator[None]:
    """Replaces working copies' paths in error messages by the addresses that the user gave."""
    try:
        yield
    except UserError as error:
        module = sys.modules.get("maskanim_jax.buckets.working_copy")
        if module is not None:
            error.args = (module.in_words(str(error)),)
        raise


def in_working_copy(*, training: bool = False) -> Callable[[Function], Function]:
    """A decorator for functions with a parameter `workdir`: for an address in a bucket,
    they run within `opened`.

    If they return a path in the working copy, it becomes an address, in `pathlib`'s
    form (see `address.shown`).
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            workdir = bound.arguments["workdir"]
            if (address := address_of(workdir)) is None:
                return function(*args, **kwargs)
            with opened(workdir, training) as folder:
                bound.arguments["workdir"] = folder
                result = function(*bound.args, **bound.kwargs)
            if isinstance(result, Path) and result.is_relative_to(folder):
                return Path(str(address), result.relative_to(folder))
            return result

        return wrapped  # type: ignore[return-value]

    return decorate
