"""How does a checkpoint of a released implementation become ours, and ours one of theirs?

A file is a dict: a state dict for each module, perhaps an Adam state for some of them (`optimizer_MODULE`), perhaps `epoch`. Which of their
tensors is which of ours is said by the system's own file beside this; all else is here, for every system. Conv kernels are O, I, H, W there
and H, W, I, O here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np
from ml_collections import ConfigDict

from maskanim_jax.conversion.adam_state import Moments
from maskanim_jax.errors import UserError
from maskanim_jax.systems.interface import PyTree, Variables

if TYPE_CHECKING:
    from maskanim_jax.conversion.recognition import Found, Recognized


class ParamMapping(NamedTuple):
    """Where one of their tensors lives here: "params" or "stats", then the path; kernels are transposed."""

    collection: str
    path: tuple[str, ...]
    kernel: bool

    def ours(self, theirs: np.ndarray) -> np.ndarray:
        """Their array as ours, float32."""
        value = np.asarray(theirs, np.float32)
        return value.transpose(2, 3, 1, 0) if self.kernel else value

    def theirs(self, ours: np.ndarray) -> np.ndarray:
        """Our array with their axes."""
        return ours.transpose(3, 2, 0, 1) if self.kernel else ours


class UnmappedTensor(NamedTuple):
    """One of their tensors that we do not have: what to write when no file gave it; a `fixed` one is a constant of the code."""

    default: np.ndarray
    trained: bool = False  # a parameter there, so Adam's state counts it
    fixed: bool = False


Layout = Mapping[str, ParamMapping | UnmappedTensor]
"""Every tensor of a file by full name (`MODULE.name`), in the order of the modules' state dicts."""
Shapes = Mapping[str, tuple[int, ...]]
"""What a file holds, by full name."""


class Released(Protocol):
    """What a system's own file offers."""

    OPTIONAL_MODULES: Sequence[str]
    """Modules that a file may be without; their networks then begin afresh."""

    def recognize(self, found: Found) -> Recognized | None:
        """The config that a file was trained with, when its tensors are this system's; None for another's."""
        ...

    def layout(self, config: ConfigDict, given: Shapes | None = None) -> Layout:
        """The tensors of a file with the config's sizes; `given` is what a file has, for parts that only some files have."""
        ...

    def unsupported_settings(self, config: ConfigDict) -> list[str]:
        """The settings by which the released code would compute something else from the same tensors."""
        ...

    def as_published(self, config: ConfigDict) -> list[str]:
        """Sets what published files were trained with where the config has it otherwise; returns a sentence for each."""
        ...


def released(config: ConfigDict) -> Released:
    """The file of the config's system; raises UserError when it has none."""
    if (module := released_of(config.system)) is None:
        raise UserError(f"config.system={config.system} has no released checkpoints to convert: give another config")
    return module


def released_of(system: str) -> Released | None:
    """The file of the system of that name; None when it has none."""
    name = f"maskanim_jax.conversion.{system}"
    try:
        return cast(Released, importlib.import_module(name))
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise  # a package that the module needs
        return None


def shapes(tree: Mapping[Any, Any]) -> Shapes:
    """Shapes of the tensors of every module in what `read_tensors` found, by full name."""
    return {
        f"{module}.{str(name).removeprefix('module.')}": array.shape
        for module, state in tree.items()
        if isinstance(state, dict) and not str(module).startswith("optimizer")
        for name, array in state.items()
        if isinstance(array, np.ndarray)
    }


def modules(layout: Layout) -> list[str]:
    """The names of the modules, in order."""
    return list(dict.fromkeys(name.split(".", 1)[0] for name in layout))


def trained(layout: Layout, module: str) -> list[str]:
    """Full names of a module's parameters in the order in which torch's optimisers count them."""
    return [
        name
        for name, at in layout.items()
        if name.startswith(f"{module}.")
        and (at.trained if isinstance(at, UnmappedTensor) else at.collection == "params")
    ]


def to_variables(theirs: Mapping[str, np.ndarray], layout: Layout) -> Variables:
    """Their tensors by full name to our variables; raises KeyError for one that is missing."""
    return Variables(*(tree_of(layout, collection, lambda name: theirs[name]) for collection in ("params", "stats")))


def from_variables(variables: Variables, layout: Layout) -> dict[str, np.ndarray]:
    """Our variables (or a tree like the parameters) to their tensors by full name."""
    return {
        name: at.theirs(np.asarray(leaf_of(getattr(variables, at.collection), at.path)))
        for name, at in layout.items()
        if isinstance(at, ParamMapping)
    }


def tree_of(layout: Layout, collection: str, value: Callable[[str], np.ndarray], network: str | None = None) -> PyTree:
    """Our nested dict of one collection, of one network without its name if asked."""
    result: dict[str, Any] = {}
    for name, at in layout.items():
        if network is None and isinstance(at, ParamMapping):
            result.setdefault(at.path[0], {})  # a network may have no statistics
        if isinstance(at, ParamMapping) and at.collection == collection and network in (None, at.path[0]):
            path = at.path if network is None else at.path[1:]
            tree = result
            for key in path[:-1]:
                tree = tree.setdefault(key, {})
            tree[path[-1]] = at.ours(value(name))
    return result


def leaf_of(tree: PyTree, path: Sequence[str]) -> Any:
    """What is at a path."""
    for key in path:
        tree = tree[key]
    return tree


def file_tree(
    variables: Variables,
    moments: Mapping[str, Moments],
    unused: Mapping[str, np.ndarray],
    layout: Layout,
    epoch: int,
    groups: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """What a file holds, for `write_tensors`; `groups` has each module's Adam settings (lr, betas, ...), by module."""
    ours = from_variables(variables, layout)
    adam = {}
    for which in ("first", "second"):
        # Networks without updates have no state there; their parameters stand in to keep the tree whole.
        trees = {
            name: getattr(moments[name], which) if name in moments else tree for name, tree in variables.params.items()
        }
        adam[which] = from_variables(Variables(trees, variables.stats), layout)
    states: dict[str, Any] = {}
    optimisers: dict[str, Any] = {}
    for module in modules(layout):
        names = [name for name in layout if name.startswith(f"{module}.")]
        states[module] = {
            name.split(".", 1)[1]: ours[name]
            if isinstance(at := layout[name], ParamMapping)
            else unused.get(name, at.default)
            for name in names
        }
        counted = trained(layout, module)
        state = {
            number: {
                "step": np.float32(moments[at.path[0]].updates),
                "exp_avg": adam["first"][name],
                "exp_avg_sq": adam["second"][name],
            }
            for number, name in enumerate(counted)
            if isinstance(at := layout[name], ParamMapping) and at.path[0] in moments
        }
        group = {**groups[module], "params": list(range(len(counted)))}
        optimisers[f"optimizer_{module}"] = {"state": state, "param_groups": [group]}
    return states | optimisers | {"epoch": epoch}
