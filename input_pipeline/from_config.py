"""Where do a config's shards come from? A folder that `prepare` wrote, or, for the puppets configs, drawn here."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from input_pipeline.shards import Split, open_split
from maskanim_jax.distributed import peers as hosts
from maskanim_jax.errors import UserError


def ensure_shards(config: ConfigDict) -> Path:
    """The folder of the config's shards; draws and prepares the puppets when the config has them and the folder is missing."""
    if not config.data.shards:
        raise UserError(
            "config.data.shards is empty: give --config.data.shards=SHARDS, a folder that `python -m input_pipeline.prepare` wrote"
        )
    shards = Path(config.data.shards)
    puppets = config.data.puppets
    peers = hosts.current()
    if not shards.exists() and puppets.train_identities and peers is not None and peers.index:
        _wait_for(shards)  # process 0 draws them
    elif not shards.exists() and puppets.train_identities:
        from input_pipeline.prepare import prepare
        from input_pipeline.puppets.dataset import write_dataset

        videos = shards.with_name(f"{shards.name}-videos")
        shards.parent.mkdir(parents=True, exist_ok=True)
        print(f"drawing {puppets.train_identities} + {puppets.test_identities} puppets into {videos}", flush=True)
        write_dataset(
            videos,
            size=config.frame_size,
            train_identities=puppets.train_identities,
            test_identities=puppets.test_identities,
            clips_per_identity=puppets.clips_per_identity,
            frames=puppets.frames,
            seed=puppets.seed,
        )
        prepare(videos, shards, size=config.frame_size, encoding="png")
    return shards


def _wait_for(shards: Path) -> None:
    """Until the folder has its name, which it gets when it is complete; should process 0 fail, this one ends with it."""
    until = time.monotonic() + hosts.ARRIVAL
    while not shards.exists():
        if time.monotonic() > until:
            raise UserError(
                f"{shards} did not appear within {hosts.ARRIVAL / 60:.0f} minutes: process 0 draws the puppets, "
                "so give --config.data.shards on a disk that all processes share"
            )
        time.sleep(0.5)


def open_data(config: ConfigDict, split: str) -> Split:
    """A split of the config's shards; raises UserError when the frames have another size than the config's."""
    found = open_split(ensure_shards(config), split)
    if found.size != config.frame_size:
        raise UserError(
            f"{found.shards} has frames of {found.size} pixels, but config.frame_size={config.frame_size}: prepare it with --size={config.frame_size}"
        )
    return found


def true_silhouettes(config: ConfigDict, split: str) -> Callable[[str], np.ndarray] | None:
    """For puppets: clip name to its true silhouettes (T, S, S) float32 in [0, 1]; None for real data, which has no such truth."""
    puppets = config.data.puppets
    identities = puppets.train_identities if split == "train" else puppets.test_identities
    if not identities:
        return None
    from input_pipeline.puppets.dataset import clips, render_clip

    by_name = {
        clip.name: clip for clip in clips(split, identities, puppets.clips_per_identity, puppets.frames, puppets.seed)
    }

    def silhouettes(name: str) -> np.ndarray:
        return (
            np.stack([drawn.silhouette for drawn in render_clip(by_name[name], config.frame_size)]).astype(np.float32)
            / 255
        )

    return silhouettes
