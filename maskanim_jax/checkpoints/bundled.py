"""How is a checkpoint that comes with the package loaded? By its name, checked against its hashes, and never unpickled.

A checkpoint is a folder of `maskanim_jax/bundled`: variables.npz has parameters (perhaps in half precision) and batch statistics by path as
plain arrays, config.json the config, card.json the step, the SHA-256 of both, figures and origin. Beside them lie examples, source.png and
driving.mp4. `scripts/pack_checkpoint.py` writes it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskanim_jax.errors import UserError
from maskanim_jax.utils import json_files

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from maskanim_jax.checkpoints.run import LoadedRun
    from maskanim_jax.systems.interface import System, Variables

FOLDER = Path(__file__).parents[1] / "bundled"
VERSION = 1
CARD, CONFIG, VARIABLES = "card.json", "config.json", "variables.npz"
SOURCE, DRIVING = "source.png", "driving.mp4"
LARGEST = 10 << 20
"""Bytes that a bundled checkpoint may have."""
_MEND = "install maskanim_jax again"


def names() -> list[str]:
    """The checkpoints that come with the package."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{CARD}"))


def is_bundled(path: Path) -> bool:
    """Whether `path` is a bundled checkpoint's name; a file or folder of that name goes first."""
    return str(path) in names() and not path.exists()


def describe(name: str) -> dict[str, Any]:
    """card.json: `step`, `sha256` of the other two files, `figures`, `trained_with`. Raises UserError when it is damaged."""
    path = FOLDER / name / CARD
    try:
        card = json_files.read(path)
        if card["version"] != VERSION:
            raise ValueError(f"version {card['version']}")
        if not all(isinstance(card["sha256"][file], str) for file in (CONFIG, VARIABLES)):
            raise TypeError("no hash")
        int(card["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is missing or damaged ({error}): {_MEND}") from error
    return card


def config_of(name: str) -> ConfigDict:
    """The config that the checkpoint was trained with; a field that is younger has its default. Raises UserError."""
    from maskanim_jax.workdir.config import read_config

    _verified(FOLDER / name / CONFIG, describe(name))
    return read_config(FOLDER / name)


def load(name: str) -> LoadedRun:
    """The trained system. Raises UserError when a file is missing or is not the one that was packed."""
    import jax

    from maskanim_jax.checkpoints.run import LoadedRun
    from maskanim_jax.systems import build

    card, config = describe(name), config_of(name)
    system = build(config)
    variables = _variables(_verified(FOLDER / name / VARIABLES, card), system)
    return LoadedRun(config, system, jax.device_put(variables, jax.local_devices()[0]), int(card["step"]))


def example(path: Path, file: str) -> Path:
    """SOURCE or DRIVING that comes with the checkpoint of the name `path`; any other path as it is."""
    return FOLDER / path / file if is_bundled(path) and (FOLDER / path / file).is_file() else path


def examples(name: str) -> list[tuple[Path, Path]]:
    """(source, driving) pairs that come with the checkpoint: source.png and driving.mp4 first, then source-2.png and driving-2.mp4, ..."""
    folder = FOLDER / name
    first, numbered = folder / SOURCE, sorted(folder.glob("source-*.png"))
    pairs = [
        (source, folder / source.name.replace("source", "driving").replace(".png", ".mp4"))
        for source in (first, *numbered)
    ]
    return [pair for pair in pairs if all(path.is_file() for path in pair)]


def _verified(path: Path, card: dict[str, Any]) -> Path:
    """The path, when the file's hash is the card's."""
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): {_MEND}") from error
    if found != (wanted := card["sha256"][path.name]):
        raise UserError(
            f"{path} is not the file that was packed (SHA-256 {found[:16]}..., not {wanted[:16]}...): {_MEND}"
        )
    return path


def _variables(path: Path, system: System) -> Variables:
    import jax

    from maskanim_jax.serialization.npz import read_npz

    arrays = read_npz(path, _MEND, 8 * LARGEST)
    leaves, structure = jax.tree_util.tree_flatten_with_path(jax.eval_shape(system.init, jax.random.key(0)))
    wanted = {key(where): leaf for where, leaf in leaves}
    if {name: leaf.shape for name, leaf in wanted.items()} != {
        name: array.shape for name, array in arrays.items()
    } or any(arrays[name].dtype not in (leaf.dtype, np.float16) for name, leaf in wanted.items()):
        raise UserError(f"{path} does not hold the variables of its config: {_MEND}")
    return jax.tree_util.tree_unflatten(
        structure, [arrays[name].astype(leaf.dtype, copy=False) for name, leaf in wanted.items()]
    )


def key(where: Any) -> str:
    """The name of an array: its path, such as `params/mask/blocks/0/conv/kernel`."""
    return "/".join(str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part)))) for part in where)
