"""A bundled checkpoint fine-tuned on your own clips at 128 x 128, for two cores or more.

`configs/own_clips.py` starts from `puppets`, `configs/own_clips.py:puppets-fomm` from the
checkpoint of FOMM.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import common, fomm_puppets, puppets, small
from maskanim_jax.errors import UserError

STARTS = {"puppets": puppets, "puppets-fomm": fomm_puppets}
"""Maps a bundled checkpoint to the config that it was trained with."""


def get_config(start: str = "puppets") -> ConfigDict:
    """The shards are prepared with

    python -m input_pipeline.prepare --input=ROOT --output=data/mine --size=128
    """
    if start not in STARTS:
        raise UserError(f"this config's argument is {' or '.join(STARTS)}, not '{start}'")
    c = STARTS[start].get_config("128")
    small.real_data(c, "own-clips", "data/mine")
    c.data.puppets = common.get_config().data.puppets  # the clips are real: their ground truth is unknown
    c.optim.learning_rate /= 5
    c.optim.max_steps = c.optim.cosine_steps = 1500
    c.init_from = start
    return c
