"""Was the driver followed?

A run on puppets is compared with the known ground truth, in numbers and one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from input_pipeline.from_config import open_data, true_silhouettes
from maskanim_jax.buckets.local_paths import in_working_copy
from maskanim_jax.checkpoints.loading import load_run
from maskanim_jax.evaluation import cross_identity
from maskanim_jax.evaluation.reconstruction import reconstruct, write_figures
from maskanim_jax.workdir.results import BEFORE, TRUTH

START = "own"
"""The source frame shows the source's own first pose, as a user's photo does."""
NEARER = 0.75
"""The driver counts as followed if the joints' error is at most this share of the copied source's.
"""
PAIRS, FRAMES = 8, 6
"""The number of pairs, and of frames of each, that are measured at the end of a run."""


class Verdict(NamedTuple):
    """The answer, and a sentence with its numbers."""

    followed: bool
    sentence: str


@in_working_copy()
def measure_before(config: ConfigDict, workdir: Path) -> None:
    """Reconstructs the test split with the networks of `config.init_from` and writes `before.json`.

    Does nothing without them, or if their frames have another size.
    """
    if not config.init_from:
        return
    run = load_run(Path(config.init_from))
    if run.system.frame_size != config.frame_size:
        print(
            f"{config.init_from} is not measured before training: its frames have {run.system.frame_size} pixels, "
            f"those of this run {config.frame_size}"
        )
        return
    split = open_data(config, "test", jax.process_index())
    figures = reconstruct(
        run.system,
        run.variables,
        split,
        clips=config.reconstruct.clips or None,
        silhouettes=true_silhouettes(config, split),
        progress=True,
    )
    about = {"label": f"{config.init_from}, before training", "data_fingerprint": split.fingerprint}
    write_figures(workdir / BEFORE, {**about, **figures})


@in_working_copy()
def measure_followed(config: ConfigDict, workdir: Path) -> Verdict | None:
    """Animates test puppets by others, writes `truth.json` and returns the verdict; None for real
    clips, whose ground truth is unknown.
    """
    if not config.data.puppets.test_identities:
        return None
    run = load_run(workdir, config.reconstruct.checkpoint)
    variant = next(iter(run.system.variants))
    figures = cross_identity.measure_cross_identity(
        run, pairs=PAIRS, frames=FRAMES, starts=(START,), variants=(variant,), progress=True
    )
    write_figures(workdir / TRUTH, figures)
    return verdict(figures)


def verdict(figures: Mapping[str, Any]) -> Verdict:
    """Judges the content of truth.json by its first variant that is not a reference, starting
    from the source's own pose.
    """
    rows = [row for row in figures["rows"] if row["start"] == START]
    result = next(row for row in rows if not row["reference"])
    copied = next(row for row in rows if row["variant"] == cross_identity.REFERENCES[0])
    error, still = result["joint_error"], copied["known_joint_error"]
    followed = error <= NEARER * still
    return Verdict(
        followed,
        f"The driver was {'followed' if followed else 'NOT followed'}: in {len(result['pairs'])} animations of puppets by other puppets "
        f"joints are {error:.1f} pixels of 64 from their true positions (the copied source: {still:.1f}), "
        f"and the silhouettes' IoU with the ground truth is {result['iou']:.2f} (the copied source: {copied['iou']:.2f}).",
    )
