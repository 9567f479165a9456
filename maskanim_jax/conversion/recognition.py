"""Which system and config does a checkpoint file belong to?

Each system's conversion module decides for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from maskanim_jax.conversion.foreign import method_of
from maskanim_jax.conversion.layout import Layout, ParamMapping, Shapes, released_of, shapes
from maskanim_jax.errors import UserError
from maskanim_jax.systems import SYSTEMS


class Found(NamedTuple):
    """What a system may use to recognise a checkpoint as its own."""

    shapes: Shapes
    """The shape of every tensor of every module, by full name."""
    updated: frozenset[str]
    """Modules whose optimiser has been updated."""
    epoch: int | None
    name: str
    """Name and parent folder of the file in lower case: a hint at the data set, never at the
    networks.
    """


class Recognized(NamedTuple):
    """A system's answer: the method's name for messages, the config, and a message for each
    assumption.
    """

    method: str
    config: ConfigDict
    assumed: list[str]


def recognize(path: Path, tree: Mapping[Any, Any]) -> Recognized:
    """The system and config of what `read_tensors` found in the file at `path`.

    Raises UserError for a checkpoint of another method and for an incomplete one.
    """
    found = Found(shapes(tree), _updated(tree), _epoch(tree), f"{path.absolute().parent.name}/{path.name}".lower())
    for system in SYSTEMS:
        module = released_of(system)
        if module is None or (answer := module.recognize(found)) is None:
            continue
        layout = module.layout(answer.config, found.shapes)
        _check_whole(path, answer, layout, found.shapes)
        return answer
    raise UserError(f"{path} {method_of(names_of(tree)) or _unknown(tree)}")


def refuse_other_methods(path: Path, tree: Mapping[Any, Any]) -> None:
    """Raises UserError when the file is known to belong to another method, whatever the config."""
    found = Found(shapes(tree), frozenset(), None, "")
    modules = [module for module in map(released_of, SYSTEMS) if module is not None]
    if not any(module.recognize(found) for module in modules) and (what := method_of(names_of(tree))):
        raise UserError(f"{path} {what}")


def names_of(tree: Mapping[Any, Any]) -> frozenset[str]:
    """The keys of the file's dict and of the dicts one level below."""
    inner = (key for value in tree.values() if isinstance(value, dict) for key in value)
    return frozenset(str(key) for key in (*tree, *inner))


def _check_whole(path: Path, answer: Recognized, layout: Layout, given: Shapes) -> None:
    """Raises UserError when so many tensors are missing that a list of names would not help."""
    there = {name.split(".", 1)[0] for name in given}
    wanted = [name for name, at in layout.items() if isinstance(at, ParamMapping) and name.split(".", 1)[0] in there]
    missing = [name for name in wanted if name not in given]
    if 10 * len(missing) > len(wanted):
        raise UserError(
            f"{path} is a checkpoint of {answer.method} with {len(missing)} of its {len(wanted)} tensors missing, such as {missing[0]}: "
            "download it again, or save all modules of the original with torch.save"
        )


def _unknown(tree: Mapping[Any, Any]) -> str:
    listed = _listed([str(key) for key in tree if not str(key).startswith("optimizer")])
    return (
        f"holds {listed or 'nothing'}, so it is not a checkpoint of one of the systems here ({', '.join(SYSTEMS)}): "
        "give a checkpoint of their released code"
    )


def _listed(names: Sequence[str], max_names: int = 4) -> str:
    shown = ", ".join(f"'{ascii(name)[1:-1][:60]}'" for name in names[:max_names])
    return shown + (f" and {len(names) - max_names} more" if len(names) > max_names else "")


def _updated(tree: Mapping[Any, Any]) -> frozenset[str]:
    states = {str(key).removeprefix("optimizer_"): value for key, value in tree.items() if str(key).startswith("optim")}
    return frozenset(name for name, value in states.items() if isinstance(value, dict) and value.get("state"))


def _epoch(tree: Mapping[Any, Any]) -> int | None:
    epoch = tree.get("epoch")
    return epoch if type(epoch) is int else None


def assumption(chosen: str, others: Sequence[str], by_name: bool, matters: str) -> list[str]:
    """A message about a data set that the tensors do not determine, for configs named like
    `configs/fomm_taichi.py`; none without `others`.
    """
    if not others:
        return []
    why = "by the file's name" if by_name else "assumed"
    return [
        f"the tensors do not determine the data set: {chosen} ({why}); it matters only {matters}, "
        f"otherwise give --config={' or '.join(others)}"
    ]
