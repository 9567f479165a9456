"""How are checkpoints converted between a released implementation and this one?

A file is a dict: a state dict per module, optionally an Adam state for some of them
(`optimizer_MODULE`) and `epoch`. Each system has a module in this folder that maps its tensors;
everything that all systems share is here. Convolution kernels are (O, I, H, W) in PyTorch and (H,
W, I, O) here.
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
    """The location of a PyTorch tensor here: "params" or "stats", then the path.

    Kernels are transposed.
    """

    collection: str
    path: tuple[str, ...]
    kernel: bool

    def ours(self, theirs: np.ndarray) -> np.ndarray:
        """The PyTorch array with this project's axes, float32."""
        value = np.asarray(theirs, np.float32)
        return value.transpose(2, 3, 1, 0) if self.kernel else value

    def theirs(self, ours: np.ndarray) -> np.ndarray:
        """The array with PyTorch's axes."""
        return ours.transpose(3, 2, 0, 1) if self.kernel else ours


class UnmappedTensor(NamedTuple):
    """A PyTorch tensor without a counterpart here: `default` is written if no imported file gave a
    value. A `fixed` one is a constant of the released code.
    """

    default: np.ndarray
    trained: bool = False  # a parameter in PyTorch, so Adam's state counts it
    fixed: bool = False


Layout = Mapping[str, ParamMapping | UnmappedTensor]
"""Every tensor of a file by full name (`MODULE.name`), in the order of the modules' state dicts."""
Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of a file's tensors, by full name."""


class Released(Protocol):
    """What each system's conversion module provides."""

    OPTIONAL_MODULES: Sequence[str]
    """Modules that a file may lack; their networks are then initialised."""

    def recognize(self, found: Found) -> Recognized | None:
        """The config that a file was trained with, if its tensors are this system's; otherwise
        None.
        """
        ...

    def layout(self, config: ConfigDict, given: Shapes | None = None) -> Layout:
        """The tensors of a file with the config's sizes; `given` has the file's shapes, for parts
        that only some files have.
        """
        ...

    def unsupported_settings(self, config: ConfigDict) -> list[str]:
        """The settings with which the released code would compute something else from the same
        tensors.
        """
        ...

    def as_published(self, config: ConfigDict) -> list[str]:
        """Sets the fields in which the published files were trained differently from the config;
        returns a message for each.
        """
        ...


def released(config: ConfigDict) -> Released:
    """The conversion module of the config's system; raises UserError when there is none."""
    if (module := released_of(config.system)) is None:
        raise UserError(f"config.system={config.system} has no released checkpoints to convert: give another config")
    return module


def released_of(system: str) -> Released | None:
    """The conversion module of the system `name`; None when there is none."""
    name = f"maskanim_jax.conversion.{system}"
    try:
        return cast(Released, importlib.import_module(name))
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise  # a package that the module imports is missing
        return None


def shapes(tree: Mapping[Any, Any]) -> Shapes:
    """Shapes of every module's tensors in the result of `read_tensors`, by full name."""
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
    """Full names of a module's parameters, in the order of PyTorch's optimisers."""
    return [
        name
        for name, at in layout.items()
        if name.startswith(f"{module}.")
        and (at.trained if isinstance(at, UnmappedTensor) else at.collection == "params")
    ]


def to_variables(theirs: Mapping[str, np.ndarray], layout: Layout) -> Variables:
    """Converts a file's tensors, by full name, to variables; raises KeyError for a missing one."""
    return Variables(*(tree_of(layout, collection, lambda name: theirs[name]) for collection in ("params", "stats")))


def from_variables(variables: Variables, layout: Layout) -> dict[str, np.ndarray]:
    """Converts variables (or a tree like the parameters) to a file's tensors, by full name."""
    return {
        name: at.theirs(np.asarray(leaf_of(getattr(variables, at.collection), at.path)))
        for name, at in layout.items()
        if isinstance(at, ParamMapping)
    }


def tree_of(layout: Layout, collection: str, value: Callable[[str], np.ndarray], network: str | None = None) -> PyTree:
    """The nested dict of one collection; with `network`, only that network's part."""
    result: dict[str, Any] = {}
    for name, at in layout.items():
        if network is None and isinstance(at, ParamMapping):
            result.setdefault(at.path[0], {})  # some networks have no statistics
        if isinstance(at, ParamMapping) and at.collection == collection and network in (None, at.path[0]):
            path = at.path if network is None else at.path[1:]
            tree = result
            for key in path[:-1]:
                tree = tree.setdefault(key, {})
            tree[path[-1]] = at.ours(value(name))
    return result


def leaf_of(tree: PyTree, path: Sequence[str]) -> Any:
    """The value at a path."""
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
    """The dict of a file, for `write_tensors`; `groups` has the Adam settings (lr, betas, ...) by
    module.
    """
    ours = from_variables(variables, layout)
    adam = {}
    for which in ("first", "second"):
        # Networks without updates have no Adam state; their parameters fill the tree and are dropped below.
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
