"""What would the same networks, losses and gradient rules be in PyTorch?

Written so that our numbers stand beside the framework that the released code uses. Tensors have the names of a released checkpoint: a file of
the project's exporter loads. A system's model has `MODULES` (its parts in a file), `network(name)`, `losses`, `optimizer`, `begin` and `frames`.
"""

from __future__ import annotations

from typing import Any


def model(config: Any) -> Any:
    """The networks of the config's system with fresh weights."""
    if config.system == "fomm":
        from benchmarks.pytorch.fomm import Model as Fomm

        return Fomm(config)
    from benchmarks.pytorch.perturbed_masks import Model as PerturbedMasks

    return PerturbedMasks(config)
