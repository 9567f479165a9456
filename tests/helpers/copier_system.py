"""A system that answers with the source, and clips held in memory, for the tests of figures."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from maskanim_jax.systems.interface import Variables


@dataclass(frozen=True)
class Copier:
    """A System that answers with the source; its mask is the driver's red."""

    frame_size: int = 8
    result: str = "fine"
    mask_output: str = "driving_mask"
    output_names: tuple = ("source", "driving", "driving_mask", "fine")

    def reconstruct(self, variables, source, driving):
        return {"source": source, "driving": driving, "driving_mask": driving[..., :1], "fine": source}


@dataclass(frozen=True)
class Clip:
    name: str
    identity: str
    count: int
    fps: Fraction = Fraction(10)


class Split:
    """Clips whose frame i is filled with 10 i; counts how many frames were read."""

    def __init__(self, *counts):
        self.clips = [Clip(f"c{i}", f"c{i}", count) for i, count in enumerate(counts)]
        self.read = 0

    def frame(self, number, index):
        self.read += 1
        return np.full((8, 8, 3), 10 * index, np.uint8)


NOTHING = Variables({}, {})
