"""Does grid sampling match both of PyTorch's conventions?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskanim_jax.nn.warp import coordinate_grid, grid_sample

RNG = np.random.RandomState(0)


def mirrored(position, low, high):
    """Folds a position back and forth between two mirrors."""
    while not low <= position <= high:
        position = 2 * low - position if position < low else 2 * high - position
    return position


def read(frame, x, y, align_corners, padding):
    """One bilinear reading of (H, W, C) at x, y in [-1, 1], pixel by pixel."""
    height, width, _ = frame.shape
    places = []
    for value, size in ((x, width), (y, height)):
        at = (value + 1) / 2 * (size - 1) if align_corners else (value + 1) / 2 * size - 0.5
        if padding == "reflection":
            at = mirrored(at, 0, size - 1) if align_corners else min(max(mirrored(at, -0.5, size - 0.5), 0), size - 1)
        places.append(at)
    total = np.zeros(frame.shape[-1])
    for row in range(height):
        for column in range(width):
            weight = max(0, 1 - abs(places[0] - column)) * max(0, 1 - abs(places[1] - row))
            total += weight * frame[row, column]
    return total


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "reflection"])
def test_every_reading_is_the_bilinear_mean_of_its_neighbours(align_corners, padding):
    frames = RNG.rand(2, 5, 7, 3).astype(np.float32)
    grid = RNG.uniform(-2.5, 2.5, (2, 6, 4, 2)).astype(np.float32)
    found = grid_sample(jnp.asarray(frames), jnp.asarray(grid), align_corners=align_corners, padding=padding)
    wanted = [
        [[read(frames[n], *grid[n, i, j], align_corners, padding) for j in range(4)] for i in range(6)] for n in (0, 1)
    ]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_the_unmoved_grid_reads_the_frame_itself_only_when_corners_are_aligned():
    frame = jnp.asarray(RNG.rand(1, 8, 8, 2), jnp.float32)
    grid = coordinate_grid(8, 8)[None]
    np.testing.assert_allclose(grid_sample(frame, grid, align_corners=True, padding="zeros"), frame, atol=1e-5)
    shrunk = grid_sample(frame, grid, align_corners=False, padding="zeros")
    # The outermost coordinate is the pixel's edge: half of the reading, in the corner three quarters, lies outside.
    np.testing.assert_allclose(shrunk[0, 0, 0], frame[0, 0, 0] / 4, atol=1e-5)


def test_x_comes_first():
    grid = coordinate_grid(2, 3)
    np.testing.assert_array_equal(grid[:, :, 0], [[-1, 0, 1], [-1, 0, 1]])
    np.testing.assert_array_equal(grid[:, :, 1], [[-1, -1, -1], [1, 1, 1]])


@pytest.mark.slow
def test_far_outside_there_is_nothing_and_no_gradient_runs_away():
    frame = jnp.ones((1, 4, 4, 1))
    grid = jnp.asarray([[[[3e9, 0.0], [0.0, -1e30]]]], jnp.float32)

    def total(frame, grid):
        return grid_sample(frame, grid, align_corners=False, padding="zeros").sum()

    assert total(frame, grid) == 0
    for gradient in jax.grad(total, (0, 1))(frame, grid):
        np.testing.assert_array_equal(gradient, 0)


def test_the_gradient_of_the_grid_is_the_slope_of_the_frame():
    ramp = jnp.broadcast_to(jnp.arange(8.0)[None, None, :, None], (1, 8, 8, 1))
    at = jnp.asarray([[[[0.1, 0.2]]]])
    slope = jax.grad(lambda grid: grid_sample(ramp, grid, align_corners=False, padding="zeros").sum())(at)
    np.testing.assert_allclose(slope[0, 0, 0], [4.0, 0.0], atol=1e-4)  # eight pixels are two wide
