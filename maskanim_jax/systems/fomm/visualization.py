"""How are keypoints and motion fields visualised? They are drawn inside jit."""

from __future__ import annotations

import colorsys

import jax
import jax.numpy as jnp

from maskanim_jax.nn.warp import coordinate_grid
from maskanim_jax.systems.augmentation import shift_hue
from maskanim_jax.systems.fomm.motion import gaussians

DOT = 0.025
"""Radius (standard deviation) of a dot, where the frame is 2 wide."""
FULL_COLOUR = 0.5
"""A displacement of a quarter of the frame's side, or more, has the full colour."""


def draw_keypoints(frames: jax.Array, points: jax.Array) -> jax.Array:
    """A coloured dot at each keypoint (N, K, 2) of the frames (N, S, S, 3), the same colour for the
    same k everywhere.
    """
    count = points.shape[1]
    colours = jnp.asarray([colorsys.hsv_to_rgb(k / count, 1.0, 1.0) for k in range(count)])
    dots = jnp.minimum(1.0, 2 * gaussians(points, coordinate_grid(*frames.shape[1:3]), DOT**2))
    shares = dots / jnp.maximum(dots.sum(-1, keepdims=True), 1e-6)  # where dots overlap, their colours mix
    mixed = jnp.einsum("nhwk,kc->nhwc", shares, colours, precision=jax.lax.Precision.HIGHEST)
    return frames + dots.max(-1, keepdims=True) * (mixed - frames)


def draw_motion(deformation: jax.Array) -> jax.Array:
    """Colour-codes a motion field, (N, H, W, 2) to (N, H, W, 3): hue is the direction, white is no
    motion.
    """
    moved = deformation - coordinate_grid(*deformation.shape[1:3])
    strength = jnp.minimum(1.0, jnp.sqrt(jnp.square(moved).sum(-1, keepdims=True)) / FULL_COLOUR)
    turns = jnp.arctan2(moved[..., 1:], moved[..., :1]) / (2 * jnp.pi)
    colour = shift_hue(jnp.broadcast_to(jnp.asarray([1.0, 0.0, 0.0]), (*moved.shape[:-1], 3)), turns)
    return 1 - strength * (1 - colour)
