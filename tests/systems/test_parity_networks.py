"""Are m, r, l and h equal to the released implementation in evaluation mode?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import config, frames, needed, stored, variables

from maskanim_jax.nn.functional import count_parameters
from maskanim_jax.nn.resize import bilinear
from maskanim_jax.systems import build

pytestmark = [pytest.mark.slow, needed]


@pytest.fixture(scope="module")
def run():
    system, theirs = build(config()), stored("pm_eval")
    source, driving = map(jnp.asarray, frames())
    v = jax.tree.map(jnp.asarray, variables())
    ours = jax.jit(system.reconstruct)(v, source, driving)

    def animation(perturbed):  # their perturbed mask was thresholded and not resized
        small = bilinear(source, 64)
        refined = system._run(v, "refine", small, ours["source_mask"], perturbed)
        return refined, *system._generate(v, source, small, ours["source_mask"], refined)

    refined, coarse, fine = jax.jit(animation)(jnp.asarray(theirs["perturbed"]))
    return theirs, ours, {"refined": refined, "coarse": coarse, "fine": fine}


@pytest.mark.parametrize("which", ["source", "driving"])
def test_masks_are_equal_to_1e4(run, which):
    theirs, ours, _ = run
    inner = np.asarray(ours[f"{which}_mask"])[:, 3:-3, 3:-3]
    np.testing.assert_allclose(inner, theirs[f"mask_{which}"], atol=1e-4)
    assert np.asarray(ours[f"{which}_mask"]).sum() == pytest.approx(inner.sum())  # a border of zeros


def test_the_driving_mask_below_the_threshold_is_what_r_got(run):
    theirs, ours, _ = run
    mask = np.asarray(ours["driving_mask"])
    np.testing.assert_allclose(np.where(mask <= 60 / 255, 0, mask), theirs["perturbed"], atol=1e-4)


def test_the_refined_mask_is_equal(run):
    theirs, _, animated = run
    np.testing.assert_allclose(bilinear(animated["refined"], 256), theirs["refined_256"], atol=1e-3)


@pytest.mark.parametrize("which", ["coarse", "fine"])
def test_frames_of_the_animation_path_are_equal(run, which):
    theirs, _, animated = run
    np.testing.assert_allclose(animated[which], theirs[which], atol=1e-3)


@pytest.mark.parametrize("which", ["coarse", "fine"])
def test_frames_of_the_reconstruction_path_are_equal(run, which):
    theirs, ours, _ = run
    np.testing.assert_allclose(ours[which], theirs[f"recon_{which}"], atol=1e-3)


def test_parameters_are_as_many_as_stated():
    params = jax.eval_shape(build(config()).init, jax.random.key(0)).params
    assert round(count_parameters(params["mask"]) / 1e6, 2) == 12.56
