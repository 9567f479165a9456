"""How do float32, bfloat16 and the default matmul precision change the results?

`python benchmarks/precision.py` measures it on this device. Every row uses the released taichi
networks with the formula weights of the stored numbers (../shared/parity). It has the largest and
mean differences of masks and frames (values in [0, 1]) in evaluation mode, and the relative
differences of the losses in training mode. The first row is compared with the released
implementation in float32, whose frames were stored in half precision (which alone is 2.4e-4). The
other rows are compared with the first.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/helpers")]  # the tests have the formula weights

import parity  # noqa: E402

from maskanim_jax.errors import UserError, run_main  # noqa: E402
from maskanim_jax.nn.resize import bilinear  # noqa: E402
from maskanim_jax.systems import build  # noqa: E402
from maskanim_jax.systems.perturbed_masks import system as system_module  # noqa: E402

# Row name, `config.precision`, jax_default_matmul_precision.
ROWS = (
    ("float32, highest matmuls", "float32", "highest"),
    ("float32, default matmuls", "float32", None),
    ("bfloat16 activations", "bfloat16", None),
    ("float32, bfloat16 matmuls", "float32", "bfloat16"),
)
FRAMES = {"refined": "refined_256", "coarse": "coarse", "fine": "fine"}
PICTURES = ("mask", "refined", "coarse", "fine")
LOSSES = {"mask": "mask_correction", "coarse": "perceptual1", "fine": "perceptual2"}


def evaluate(system, variables):
    """Masks, refined mask, coarse and fine frame of the animation path; r gets the thresholded
    driving mask computed here.
    """
    source, driving = map(jnp.asarray, parity.frames())

    @jax.jit
    def run(variables, source, driving):
        source_mask, mask = (system._run(variables, "mask", frames) for frames in (source, driving))
        perturbed, small = jnp.where(mask <= 60 / 255, 0.0, mask), bilinear(source, system.mask_size)
        refined = system._run(variables, "refine", small, source_mask, perturbed)
        coarse, fine = system._generate(variables, source, small, source_mask, refined)
        return {
            "mask": jnp.concatenate([source_mask, mask])[:, 3:-3, 3:-3],
            "refined": bilinear(refined, system.frame_size),
            "coarse": coarse,
            "fine": fine,
        }

    return {name: np.asarray(value, np.float32) for name, value in run(variables, source, driving).items()}


def losses(system, variables, vgg):
    """The three losses of a training-mode step, with the fixed stand-in for
    P_train of the stored losses.
    """
    source, driving = map(jnp.asarray, parity.frames())
    original = system_module.p_train
    system_module.p_train = lambda mask, key, settings: jnp.where(mask <= 60 / 255, 0.0, mask) * 0.9
    try:

        @jax.jit
        def run(variables, vgg, source, driving):
            return system.losses(*variables, vgg, source, driving, driving, jax.random.key(0), True)[0]

        return {name: float(value) for name, value in run(variables, vgg, source, driving).items()}
    finally:
        system_module.p_train = original


def main(argv=None):
    """Prints a Markdown table."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.parse_args(argv)
    if not parity.FOLDER.is_dir():
        raise UserError(f"{parity.FOLDER} does not exist: put the released implementation's numbers into it")
    stored, trained = parity.stored("pm_eval"), json.loads((parity.FOLDER / "pm_train.json").read_text())["losses"]
    reference = {
        "mask": np.concatenate([stored["mask_source"], stored["mask_driving"]]),
        **{name: stored[key].astype(np.float32) for name, key in FRAMES.items()},
    }
    sums_reference = {ours: trained[theirs] for ours, theirs in LOSSES.items()}
    variables = jax.tree.map(jnp.asarray, parity.variables())
    vgg = {name: jnp.asarray(value) for name, value in parity.vgg().items()}
    lines = []
    for name, precision, matmuls in tqdm(ROWS, desc="precision", unit="row"):
        config = parity.config()
        config.precision = precision
        system = build(config)
        with jax.default_matmul_precision(matmuls):
            ours, sums = evaluate(system, variables), losses(system, variables, vgg)
        cells = []
        for picture in PICTURES:
            difference = np.abs(ours[picture] - reference[picture])
            cells.append(f"{difference.max():.1e} / {difference.mean():.1e}")
        cells += [f"{abs(sums[loss] / sums_reference[loss] - 1):.1e}" for loss in LOSSES]
        lines.append(f"| {name} | {'first row' if lines else 'released'} | {' | '.join(cells)} |")
        if len(lines) == 1:
            reference, sums_reference = ours, sums
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}\n")
    print("| | compared with | " + " | ".join([*PICTURES, *(f"loss {name}" for name in LOSSES)]) + " |")
    print("| --- " * (2 + len(PICTURES) + len(LOSSES)) + "|")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    run_main(main)
