"""Image Animation with Perturbed Masks (Shalev and Wolf, CVPR 2022) in JAX and Flax.

From Python: `load` a checkpoint, then `animate` or `stream` with it; train with `load_config` and
`run_training`. See `maskanim_jax.api`. Importing this package imports no JAX, so that reader
processes and `--help` start quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maskanim_jax.utils.xla_flags import avoid_wrong_sums

if TYPE_CHECKING:
    from maskanim_jax.animation.animator import AnimationStream, Animator, load
    from maskanim_jax.api import load_config, run_training
    from maskanim_jax.errors import UserError

    __version__: str

__all__ = ["AnimationStream", "Animator", "UserError", "__version__", "load", "load_config", "run_training"]
LAZY = {"UserError": "maskanim_jax.errors"} | dict.fromkeys(
    ("Animator", "AnimationStream", "load", "load_config", "run_training"), "maskanim_jax.api"
)
"""Public names that are imported lazily, on first use, and the module that defines them."""

avoid_wrong_sums()  # before JAX creates its devices


def __getattr__(name: str) -> Any:
    import importlib

    if name == "__version__":
        value: Any = _version()
    elif name in LAZY:
        value = getattr(importlib.import_module(LAZY[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # looked up only once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    """The installed package's version; "0+unknown" for a source tree that was never installed."""
    from importlib import metadata

    try:
        return metadata.version("maskanim_jax")
    except metadata.PackageNotFoundError:
        return "0+unknown"
