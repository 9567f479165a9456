"""VoxCeleb at 256 x 256. `configs/voxceleb.py` is the paper's reading, `configs/voxceleb.py:released` that of the authors' code."""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import perturbed_masks


def get_config(reading: str = "paper") -> ConfigDict:
    """Shards from `python -m input_pipeline.prepare --input=vox --output=data/voxceleb256 --size=256`."""
    c = perturbed_masks.start(reading)
    c.name = "voxceleb"
    c.data.shards = "data/voxceleb256"
    c.data.repeats = 75
    if reading == "released":
        c.perturb.threshold = c.perturb.test_threshold = "100"
    return c
