"""Which checkpoints and examples does the demo page offer? (Does not use Gradio.)"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np

from maskanim_jax.animation.animator import Animator, load
from maskanim_jax.checkpoints import bundled
from maskanim_jax.errors import UserError
from maskanim_jax.video.images import square
from maskanim_jax.video.reader import first_frame
from maskanim_jax.workdir.results import InputPair, input_pairs

LOADED = 2
"""How many checkpoints stay in memory."""
EXAMPLES = 8
"""How many examples are shown per checkpoint."""


class ModelCache:
    """The checkpoints that the page offers, by label; the most recently used stay loaded."""

    def __init__(self, checkpoints: Sequence[str | Path]) -> None:
        self.paths = _labels(checkpoints)
        self._lock, self._load = Lock(), lru_cache(LOADED)(load)

    def animator(self, label: object) -> Animator:
        """The loaded checkpoint of a label; raises UserError if there is
        none or it cannot be read.
        """
        if not isinstance(label, str) or label not in self.paths:
            raise UserError("this checkpoint does not exist: choose one from the list")
        with self._lock:
            return self._load(self.paths[label])

    def examples(self, label: str) -> list[InputPair]:
        """Example pairs: those of a bundled checkpoint, or those that `--mode=animate`
        wrote into a run's folder.
        """
        path = Path(self.paths.get(label, ""))
        if bundled.is_bundled(path):
            return [InputPair(*pair) for pair in bundled.examples(str(path))][:EXAMPLES]
        for workdir in (path, path.parent.parent):  # a run, or one of its checkpoints
            if found := list(input_pairs(workdir)):
                return found[:EXAMPLES]
        return []


def preview(pair: InputPair, size: int = 128) -> np.ndarray:
    """Source and first driving frame side by side, (size, 2 * size, 3) uint8.

    Raises UserError if a file can't be read.
    """
    return np.concatenate([square(first_frame(path), size) for path in pair], axis=1)


def _labels(checkpoints: Sequence[str | Path]) -> dict[str, str]:
    """Paths by label: the last name, or the whole path if two have the same last name."""
    paths = list(dict.fromkeys(os.fspath(path) for path in checkpoints))
    names = [Path(path).name or path for path in paths]
    return {name if names.count(name) == 1 else path: path for name, path in zip(names, paths, strict=True)}
