"""Are the numbers of a checkpoint that was loaded finite? One that is not makes every picture black, without a word."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from maskanim_jax.errors import UserError

Variables = TypeVar("Variables")
_SHOWN = 3


def finite_or_refused(variables: Variables, path: Path) -> Variables:
    """The tree of arrays as it is given; raises UserError that names the arrays of `path` with infinities or NaN."""
    import jax
    import numpy as np

    leaves = jax.tree_util.tree_leaves_with_path(variables)
    bad = [jax.tree_util.keystr(at, simple=True, separator="/") for at, leaf in leaves if not np.isfinite(leaf).all()]
    if bad:
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise UserError(
            f"{path} has numbers that are not finite in {', '.join(bad[:_SHOWN])}{more}: give an earlier checkpoint of the run"
        )
    return variables
