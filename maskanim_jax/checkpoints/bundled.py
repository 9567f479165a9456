"""How is a checkpoint that comes with the package loaded? By name; its hashes are verified,
and nothing is unpickled.

A bundled checkpoint is a folder in `maskanim_jax/bundled`. It has variables.npz (plain arrays, by
path, of parameters, perhaps in half precision, and batch statistics), config.json, and card.json
(step, SHA-256 of both files, metrics, origin), with source.png and driving.mp4 as an example.
`scripts/pack_checkpoint.py` creates it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
"""The largest size of a bundled checkpoint in bytes."""
_HINT = "install maskanim_jax again"


def names() -> list[str]:
    """The names of the checkpoints that come with the package."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{CARD}"))


def is_bundled(path: Path) -> bool:
    """Whether `path` is the name of a bundled checkpoint; an existing file or folder of
    that name takes precedence.
    """
    return str(path) in names() and not path.exists()


def describe(name: str) -> dict[str, Any]:
    """The content of card.json: `step`, `sha256` of the other two files, `figures` (metrics),
    `trained_with`. Raises UserError if it is damaged.
    """
    path = FOLDER / name / CARD
    try:
        card = json_files.read(path)
        if card["version"] != VERSION:
            raise ValueError(f"version {card['version']}")
        if not all(isinstance(card["sha256"][file], str) for file in (CONFIG, VARIABLES)):
            raise TypeError("no hash")
        int(card["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is missing or damaged ({error}): {_HINT}") from error
    return card


def config_of(name: str) -> ConfigDict:
    """The config that the checkpoint was trained with; newer fields have their defaults.

    Raises UserError.
    """
    from maskanim_jax.workdir.config import read_config

    _verified(FOLDER / name / CONFIG, describe(name))
    return read_config(FOLDER / name)


def load(name: str) -> LoadedRun:
    """The trained system. Raises UserError if a file is missing or is not the packed one."""
    import jax

    from maskanim_jax.checkpoints.run import LoadedRun
    from maskanim_jax.systems import build

    card, config = describe(name), config_of(name)
    system = build(config)
    variables = _variables(_verified(FOLDER / name / VARIABLES, card), system)
    return LoadedRun(config, system, jax.device_put(variables, jax.local_devices()[0]), int(card["step"]))


def example(path: Path, file: str) -> Path:
    """The SOURCE or DRIVING file of the bundled checkpoint called `path`; any other
    path is returned unchanged.
    """
    return FOLDER / path / file if is_bundled(path) and (FOLDER / path / file).is_file() else path


def examples(name: str) -> list[tuple[Path, Path]]:
    """The checkpoint's (source, driving) example pairs: source.png and driving.mp4 first, then
    source-2.png and driving-2.mp4, ...
    """
    folder = FOLDER / name
    first, numbered = folder / SOURCE, sorted(folder.glob("source-*.png"))
    pairs = [
        (source, folder / source.name.replace("source", "driving").replace(".png", ".mp4"))
        for source in (first, *numbered)
    ]
    return [pair for pair in pairs if all(path.is_file() for path in pair)]


def _verified(path: Path, card: dict[str, Any]) -> Path:
    """The file's path, after its hash was compared with the card's."""
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): {_HINT}") from error
    if found != (wanted := card["sha256"][path.name]):
        raise UserError(f"{path} is not the packed file (SHA-256 {found[:16]}..., not {wanted[:16]}...): {_HINT}")
    return path


def _variables(path: Path, system: System) -> Variables:
    import jax

    from maskanim_jax.serialization.npz import read_npz

    arrays = read_npz(path, _HINT, 8 * LARGEST)
    leaves, structure = jax.tree_util.tree_flatten_with_path(jax.eval_shape(system.init, jax.random.key(0)))
    wanted = {key(where): leaf for where, leaf in leaves}
    if wanted.keys() != arrays.keys() or not all(
        arrays[name].shape == leaf.shape and arrays[name].dtype in (leaf.dtype, "float16")
        for name, leaf in wanted.items()
    ):
        raise UserError(f"{path} does not have the variables of its config: {_HINT}")
    return jax.tree_util.tree_unflatten(
        structure, [arrays[name].astype(leaf.dtype, copy=False) for name, leaf in wanted.items()]
    )


def key(where: Any) -> str:
    """The name of an array is its path, such as `params/mask/blocks/0/conv/kernel`."""
    return "/".join(str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part)))) for part in where)
