"""Which local folder stands for a path that may be in a bucket? For local paths: the path itself, and nothing is imported.

A folder in a bucket gets a local working copy (see working_copy.py), which all other code uses as any folder.
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
    """A local folder to use in place of `path` for the block: `path` itself, or the working copy of an address in a bucket.

    What changed there is uploaded at the end, after an error too. `training`: takes the bucket's lock. With several processes all leave
    the block together, so that the next command finds in the bucket what process 0 has written.
    Raises UserError: the bucket is missing, refuses us or cannot be reached; another process trains there.
    """
    address = address_of(path)
    if address is None:
        yield Path(path)
        return
    from maskanim_jax.buckets import working_copy

    with working_copy.opened(address, training) as folder:
        yield folder


def fetched(path: str | os.PathLike[str], may_lack: bool = False) -> Path:
    """A local folder with what `path` holds, to read from until the process ends. Also of WORKDIR/checkpoints/STEP in a bucket.

    Raises UserError as `opened` does, and for a folder in a bucket that holds nothing unless it `may_lack`.
    """
    address = address_of(path)
    if address is None:
        return Path(path)
    from maskanim_jax.buckets import working_copy

    return working_copy.fetched(address, may_lack)


def fetched_file(path: str | os.PathLike[str], name: str) -> Path:
    """The folder `path`, or a local one with the file `name` of an address in a bucket, without what else is there."""
    address = address_of(path)
    if address is None:
        return Path(path)
    from maskanim_jax.buckets import working_copy

    return working_copy.fetched_file(address, name)


def copy_of(folder: Path) -> WorkingCopy | None:
    """The working copy that a local folder is, or is in; None for all other folders."""
    module = sys.modules.get("maskanim_jax.buckets.working_copy")
    return None if module is None else module.copy_of(folder)


def remote_checkpoints(workdir: Path) -> RemoteCheckpoints | None:
    """The checkpoints in the bucket that a run's working copy is of; None for a local run."""
    copy = copy_of(workdir)
    return None if copy is None else copy.checkpoints_of(workdir.absolute())


def in_words(folder: Path) -> str:
    """A path as the user named it: the address in the bucket for what is in a working copy."""
    copy = copy_of(folder)
    return str(folder) if copy is None else copy.in_words(str(folder.absolute()))


@contextlib.contextmanager
def naming_addresses() -> Iterator[None]:
    """In the sentences of errors, working copies are named as the user named them."""
    try:
        yield
    except UserError as error:
        module = sys.modules.get("maskanim_jax.buckets.working_copy")
        if module is not None:
            error.args = (module.in_words(str(error)),)
        raise


def in_working_copy(*, training: bool = False) -> Callable[[Function], Function]:
    """For functions with a parameter `workdir`: given an address in a bucket, they run `opened`.

    A path in the working copy that they return is returned as an address, in `pathlib`'s form (see `address.shown`).
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
