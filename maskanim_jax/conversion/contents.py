"""Does a checkpoint of the released code fit the config?

Errors name the tensors that do not fit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskanim_jax.conversion.adam_state import Moments
from maskanim_jax.conversion.layout import Layout, ParamMapping, UnmappedTensor, leaf_of, modules, trained, tree_of
from maskanim_jax.errors import UserError
from maskanim_jax.systems.interface import Variables

NAMED = 12
"""The most tensors of one kind that an error names."""


class Adam(NamedTuple):
    """Adam's state for one tensor, in PyTorch's axis order."""

    step: int
    first: np.ndarray
    second: np.ndarray


class Contents(NamedTuple):
    """The checked contents of a file: tensors and Adam states by full name.

    `adam` is empty without an optimiser; `epoch` is None if the file has none.
    """

    tensors: dict[str, np.ndarray]
    adam: dict[str, Adam]
    epoch: int | None


def read_contents(
    path: Path, tree: Mapping[Any, Any], layout: Layout, like: Variables, with_adam: bool = True
) -> Contents:
    """Checks what `read_tensors` found in the file at `path`; `like` has this project's shapes.

    Raises a UserError that names missing, extra and misshapen tensors, and one for an invalid
    optimiser state or epoch. Removes the prefix `module.` (DataParallel). Ignores entries without
    tensors that are not modules.
    """
    tensors: dict[str, np.ndarray] = {}
    optimisers = {}
    known = modules(layout)
    for key, value in tree.items():
        if str(key).startswith("optimizer"):
            optimisers[str(key)] = value
        elif key in known and isinstance(value, dict):
            tensors |= {f"{key}.{str(name).removeprefix('module.')}": array for name, array in value.items()}
        else:
            tensors |= dict(_arrays(value, str(key)))
    _check_tensors(path, tensors, layout, like)
    epoch = tree.get("epoch")
    if epoch is not None and (type(epoch) is not int or not 0 <= epoch < 1 << 24):
        raise UserError(
            f"{path} has {epoch!r:.80} for its epoch instead of a number: give a checkpoint of the released code"
        )
    adam: dict[str, Adam] = {}
    for key, state in optimisers.items() if with_adam else ():
        adam |= _read_adam(path, key, state, layout, like)
    return Contents(tensors, adam, epoch)


def _arrays(value: Any, name: str) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(value, np.ndarray):
        yield name, value
    elif isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _arrays(item, f"{name}.{key}")


def _shape(at: ParamMapping | UnmappedTensor, like: Variables) -> tuple[int, ...]:
    """The tensor's shape in the released file."""
    if isinstance(at, UnmappedTensor):
        return at.default.shape
    shape = tuple(leaf_of(getattr(like, at.collection), at.path).shape)
    return (shape[3], shape[2], shape[0], shape[1]) if at.kernel else shape


def _check_tensors(path: Path, tensors: Mapping[str, Any], layout: Layout, like: Variables) -> None:
    missing = [name for name, at in layout.items() if isinstance(at, ParamMapping) and name not in tensors]
    extra = [name for name in tensors if name not in layout]
    wrong = []
    for name, value in tensors.items():
        if name in extra:
            continue
        shape, kind = _shape(layout[name], like), "i" if name.endswith("num_batches_tracked") else "f"
        if not isinstance(value, np.ndarray) or value.shape != shape:
            wrong.append(f"{name} is {getattr(value, 'shape', type(value).__name__)} instead of {shape}")
        elif value.dtype.kind != kind:
            wrong.append(f"{name} is of type {value.dtype}")
    listed = [
        f"{len(names)} {what} ({_list(names)})"
        for what, names in (("missing", missing), ("extra", extra), ("misshapen", wrong))
        if names
    ]
    if listed:
        raise UserError(
            f"the tensors of {path} don't fit the networks of the config: {', '.join(listed)}; "
            "give the --config that it was trained with, or another file"
        )
    if broken := [name for name, value in tensors.items() if not np.isfinite(value).all()]:
        raise UserError(
            f"{path} has non-finite numbers in {_list(broken)}: give a checkpoint from before training diverged"
        )
    other = [
        name
        for name, at in layout.items()
        if isinstance(at, UnmappedTensor)
        and at.fixed
        and name in tensors
        and not np.allclose(tensors[name], at.default, rtol=2**-7, atol=1e-5)  # bfloat16 has eight significant bits
    ]
    if other:
        raise UserError(
            f"{path} has other constants in {_list(other)} than the released code: give an unchanged checkpoint"
        )


def _list(names: Sequence[str]) -> str:
    """The first names, escaped, since names in a file may contain any characters."""
    shown = ", ".join(ascii(name)[1:-1][:120] for name in names[:NAMED])
    return shown + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _read_adam(path: Path, key: str, state: Any, layout: Layout, like: Variables) -> dict[str, Adam]:
    """The entries of one PyTorch Adam state dict; parameters that were
    never updated have no entry.
    """
    hint = "convert with --without_optimizer, or give another file"
    try:
        ids = [number for group in state["param_groups"] for number in group["params"]]
        entries = {number: state["state"][number] for number in ids if number in state["state"]}
        unknown = set(state["state"]) - set(ids)
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(f"'{key}' in {path} is not an optimiser state: {hint}") from error
    wanted = key.removeprefix("optimizer").strip("_")
    known = modules(layout)
    orders = sorted(
        itertools.chain.from_iterable(itertools.permutations(known, n) for n in range(1, len(known) + 1)),
        key=lambda order: order != (wanted,),
    )
    for order in orders:
        names = [name for module in order for name in trained(layout, module)]
        if len(names) != len(ids) or unknown:
            continue
        found = {
            name: _entry(entries[number], _shape(layout[name], like))
            for name, number in zip(names, ids, strict=True)
            if number in entries
        }
        if all(found.values()):
            return {name: adam for name, adam in found.items() if adam and isinstance(layout[name], ParamMapping)}
    raise UserError(
        f"'{key}' in {path} is the state of {len(ids)} parameters, but not Adam's state for {' or '.join(known)}: {hint}"
    )


def _entry(entry: Any, shape: tuple[int, ...]) -> Adam | None:
    """One parameter's state; None if it is not a plain Adam state of this shape."""
    if not isinstance(entry, dict) or set(entry) != {"step", "exp_avg", "exp_avg_sq"}:
        return None
    first, second = entry["exp_avg"], entry["exp_avg_sq"]
    if not all(
        isinstance(m, np.ndarray) and m.shape == shape and m.dtype.kind == "f" and np.isfinite(m).all()
        for m in (first, second)
    ):
        return None
    step = np.asarray(entry["step"])
    if step.size != 1 or step.dtype.kind not in "iuf" or not 0 <= step.item() < 1 << 31:
        return None
    return Adam(int(step.item()), first, second)


def read_moments(path: Path, adam: Mapping[str, Adam], layout: Layout) -> dict[str, Moments]:
    """Adam's state per network, in this project's layout.

    Raises UserError when tensors of one network have different update counts.
    """
    result = {}
    for network in dict.fromkeys(at.path[0] for at in layout.values() if isinstance(at, ParamMapping)):
        names = [
            n
            for n, at in layout.items()
            if isinstance(at, ParamMapping) and at.collection == "params" and at.path[0] == network
        ]
        counts = {adam[name].step if name in adam else 0 for name in names}
        if len(counts) > 1:
            raise UserError(
                f"in {path}, tensors of one network were updated {min(counts)} and {max(counts)} times: convert with --without_optimizer"
            )
        if count := counts.pop():
            first, second = (
                tree_of(layout, "params", lambda name, which=which: getattr(adam[name], which), network)  # type: ignore[misc]
                for which in ("first", "second")
            )
            result[network] = Moments(count, first, second)
    return result
