"""A system whose answer is the driving frame times a gain, for the tests of all that animates; and frames for it."""

from dataclasses import dataclass
from fractions import Fraction

import jax.numpy as jnp
import numpy as np

from maskanim_jax.errors import UserError
from maskanim_jax.systems.interface import Variables
from maskanim_jax.video.writer import VideoWriter

SIZE = 32


@dataclass  # compares by value, so it cannot be hashed: systems may be like that
class Echo:
    """A System whose answer is the driving frame times a gain, and whose mask is the source's red."""

    name: str = "echo"
    frame_size: int = SIZE
    result: str = "fine"
    output_names: tuple = ("source", "driving", "mask", "fine")
    traced: int = 0

    def animation_options(self, given):
        if set(given) - {"threshold", "mask_scale"}:
            raise UserError(f"--{min(given)} is no option of echo")
        return tuple(sorted(given.items()))

    def for_inference(self, variables):
        return variables

    def encode_source(self, variables, source, first_driving):
        assert source.shape == first_driving.shape == (1, SIZE, SIZE, 3)
        return {"source": source, "first": first_driving}

    def warnings(self, source_state, options):
        """One sentence when source and first driving frame differ in brightness."""
        return ["they differ"] if float(abs(source_state["source"].mean() - source_state["first"].mean())) > 0.5 else []

    def pose_distance(self, variables, source, driving):
        return jnp.abs(driving - source).mean((1, 2, 3))

    def animate(self, variables, source_state, driving, options):
        self.traced += 1
        source = jnp.broadcast_to(source_state["source"], driving.shape)
        fine = driving * variables.params["gain"]
        return {
            "source": source,
            "driving": driving,
            "mask": source[:, ::2, ::2, :1],
            "fine": fine.astype(jnp.bfloat16),
            "first": jnp.broadcast_to(source_state["first"], driving.shape),
        }


ONE = Variables({"gain": jnp.float32(1)}, {})


def numbered(count, height=SIZE, width=SIZE):
    """Frame i is filled with 5 i."""
    return [np.full((height, width, 3), 5 * i, np.uint8) for i in range(count)]


def save(path, frames, fps=Fraction(25)):
    with VideoWriter(path, fps) as writer:
        for frame in frames:
            writer.write(frame)
    return path
