"""Where do a config's shards come from?

From `prepare`; for the puppets configs they are drawn here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from input_pipeline.shards import Split, open_split, read_index
from maskanim_jax.buckets.address import address_of, shown
from maskanim_jax.errors import UserError
from maskanim_jax.utils.paths import user_path

DRAWING_TIMEOUT_S = 900.0
"""How long the other processes of a run wait for process 0 to draw and prepare
the puppets, in seconds.
"""
_OTHER_DRAWING = 12.0
"""Mean difference in grey levels above which two images show different drawings;
JPEG alone causes about 1.
"""


def ensure_shards(config: ConfigDict, process: int = 0) -> Path:
    """Returns the folder of the config's shards.

    A puppets config draws and prepares missing shards: `process` 0 of the run draws, the others
    wait for it. Shards in a bucket are fetched into the local cache. Raises UserError.
    """
    if not config.data.shards:
        raise UserError(
            "config.data.shards is empty: give --config.data.shards=SHARDS, a folder that `python -m input_pipeline.prepare` wrote"
        )
    if (address := address_of(config.data.shards)) is not None:
        from input_pipeline.shard_cache import fetch_shards

        return fetch_shards(address)
    shards = user_path(config.data.shards)
    puppets = config.data.puppets
    if not shards.exists() and puppets.train_identities and process:
        _wait_for(shards)  # process 0 draws
    elif not shards.exists() and puppets.train_identities:
        from input_pipeline.prepare import prepare
        from input_pipeline.puppets.dataset import write_dataset

        videos = shards.with_name(f"{shards.name}-videos")
        shards.parent.mkdir(parents=True, exist_ok=True)
        drawn = (puppets.train_identities, puppets.validation_identities, puppets.test_identities)
        print(f"drawing {' + '.join(str(n) for n in drawn if n)} puppets into {videos}", flush=True)
        write_dataset(
            videos,
            size=config.frame_size,
            train_identities=puppets.train_identities,
            test_identities=puppets.test_identities,
            clips_per_identity=puppets.clips_per_identity,
            frames=puppets.frames,
            seed=puppets.seed,
            validation_identities=puppets.validation_identities,
            version=puppets.version,
        )
        prepare(videos, shards, size=config.frame_size, encoding="png")
    return shards


def _wait_for(shards: Path) -> None:
    """Waits for the folder, which appears only when it is complete; if process 0 fails,
    this process ends with it.
    """
    until = time.monotonic() + DRAWING_TIMEOUT_S
    while not shards.exists():
        if time.monotonic() > until:
            raise UserError(
                f"{shards} did not appear within {DRAWING_TIMEOUT_S / 60:.0f} minutes: process 0 draws the puppets, "
                "so give --config.data.shards on a disk that all processes share"
            )
        time.sleep(0.5)


def open_data(config: ConfigDict, split: str, process: int = 0) -> Split:
    """Opens a split of the config's shards for `process` of a run.

    Raises UserError when the frames do not have the config's size.
    """
    shards = ensure_shards(config, process)
    try:
        found = open_split(shards, split)
        if found.size != config.frame_size:
            raise UserError(
                f"{shards} has frames of {found.size} pixels, but config.frame_size={config.frame_size}: prepare it with --size={config.frame_size}"
            )
        _check_drawing(config, found)
    except UserError as error:  # names the user's folder, not where the shards of a bucket are cached
        error.args = (str(error).replace(str(shards), shown(config.data.shards)),)
        raise
    return found


def _check_drawing(config: ConfigDict, split: Split) -> None:
    """Raises UserError when the split's first clip was drawn with other
    settings than the config's.
    """
    if not config.data.puppets.train_identities:
        return
    from input_pipeline.puppets.dataset import clips_of, render_clip

    clip = next((c for c in clips_of(config.data.puppets, split.name) if c.name == split.clips[0].name), None)
    if clip is None:
        return
    drawn, stored = next(render_clip(clip, config.frame_size)).frame, split.frame(0, 0)
    if np.abs(drawn.astype(int) - stored).mean() > _OTHER_DRAWING:
        raise UserError(
            f"{split.shards} holds other puppets than config.data.puppets describes (version {clip.version}, seed {clip.seed}): "
            "give another config.data.shards to draw them there, or the version and seed that these were drawn with"
        )


def held_out_split(config: ConfigDict, process: int = 0) -> str:
    """The split that training evaluates to choose the best checkpoint.

    It is "validation" if the data has one, else "test". `process` 0 of a run draws missing puppets.
    """
    return "validation" if "validation" in read_index(ensure_shards(config, process))["splits"] else "test"


def true_silhouettes(config: ConfigDict, split: Split) -> Callable[[str], np.ndarray] | None:
    """For puppets: a function from clip name to its true silhouettes, (T, S, S) float32 in [0, 1].

    None for real data, which has no known silhouettes, also if the config is one for puppets.
    """
    from input_pipeline.puppets.dataset import clips_of, render_clip

    by_name = {clip.name: clip for clip in clips_of(config.data.puppets, split.name)}
    if not all(clip.name in by_name for clip in split.clips):
        return None

    def silhouettes(name: str) -> np.ndarray:
        return (
            np.stack([drawn.silhouette for drawn in render_clip(by_name[name], config.frame_size)]).astype(np.float32)
            / 255
        )

    return silhouettes
