"""What does a checkpoint contain? Orbax items: `state` (arrays), `info` and `metrics` (JSON)."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint._src.handlers.composite_checkpoint_handler import CompositeOptions

from maskanim_jax.errors import UserError
from maskanim_jax.utils.checksums import CorruptFileError

# Orbax logs the trace of a failed background save and also raises it; manager.py turns it into a UserError.
logging.getLogger("absl").addFilter(lambda record: not (record.exc_info and "orbax" in record.pathname))


def items(
    state: Any = None, processes: ocp.options.MultiprocessingOptions | None = None
) -> ocp.CompositeCheckpointHandler:
    """The handler of each item; `state`: another handler for arrays; `processes`:
    participants (default: all).
    """
    options = processes or ocp.options.MultiprocessingOptions()
    return ocp.CompositeCheckpointHandler(
        state=state or ocp.StandardCheckpointHandler(multiprocessing_options=options),
        info=ocp.JsonCheckpointHandler(multiprocessing_options=options),
        metrics=ocp.JsonCheckpointHandler(filename="metrics", multiprocessing_options=options),
        composite_options=CompositeOptions(multiprocessing_options=options),
    )


def lone_saver() -> ocp.AsyncCheckpointer:
    """A checkpointer that writes NumPy arrays from this process only."""
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix="save_alone"
    )
    return ocp.AsyncCheckpointer(items(processes=alone), multiprocessing_options=alone)


def restored(path: Path, **wanted: Any) -> Any:
    """Items of the checkpoint in folder `path`, by name; `wanted` are Orbax's
    arguments to restore each.
    """
    partly = isinstance(wanted.get("state"), ocp.args.PyTreeRestore)
    with ocp.Checkpointer(items(ocp.PyTreeCheckpointHandler() if partly else None)) as reader:
        return reader.restore(path, args=ocp.args.Composite(**wanted))


def read_info(path: Path) -> dict[str, Any]:
    """Reads the checkpoint's `info` without Orbax, which would need all
    processes to read it together.
    """
    return dict(json.loads((path / "info" / "metadata").read_text()))


def read_back(path: Path, like: Any) -> Any:
    """Reads the arrays of a checkpoint's state as NumPy arrays, in this process only."""
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix="read_back"
    )
    plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
        return reader.restore(path / "state", args=ocp.args.PyTreeRestore(item=like, restore_args=plain))


def compare(saved: Any, found: Any) -> None:
    """Raises CorruptFileError for the first array whose bits differ."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(saved), jax.tree.leaves(found), strict=True)
    for (path, one), other in pairs:
        other = np.asarray(other)
        if (one.shape, one.dtype) != (other.shape, other.dtype) or not np.array_equal(_bytes(one), _bytes(other)):
            raise CorruptFileError(f"{jax.tree_util.keystr(path)} differs between disk and memory")


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def to_host(leaf: Any) -> np.ndarray:
    """A copy on the host: the next step donates the array's memory."""
    return np.array(leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf)


def reason(error: BaseException) -> str:
    """The first line of a library's error message, truncated."""
    return (str(error).strip() or type(error).__name__).split("\n")[0][:200]


Arrays = TypeVar("Arrays")

_SHOWN = 3


def check_params_finite(variables: Arrays, path: Path) -> Arrays:
    """Returns the tree unchanged; raises UserError that names the arrays of
    `path` with infinities or NaN.
    """
    import jax
    import numpy as np

    leaves = jax.tree_util.tree_leaves_with_path(variables)
    bad = [jax.tree_util.keystr(at, simple=True, separator="/") for at, leaf in leaves if not np.isfinite(leaf).all()]
    if bad:
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise UserError(
            f"{path} has non-finite numbers in {', '.join(bad[:_SHOWN])}{more}: give an earlier checkpoint of the run"
        )
    return variables
