"""How are the same networks, losses and gradient rules written in PyTorch?

They allow a comparison with the framework of the released code. Tensors have the names of a
released checkpoint, so files of this project's exporter can be loaded. Each system's model has
`MODULES` (its parts in a file), `network(name)`, `losses`, `optimizer`, `begin` and `frames`.
"""

from __future__ import annotations

from typing import Any


def model(config: Any) -> Any:
    """The networks of the config's system, newly initialised."""
    if config.system == "fomm":
        from benchmarks.pytorch.fomm import Model as Fomm

        return Fomm(config)
    from benchmarks.pytorch.perturbed_masks import Model as PerturbedMasks

    return PerturbedMasks(config)
