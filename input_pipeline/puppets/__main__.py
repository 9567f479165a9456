"""How do I draw the puppets data set? `python -m input_pipeline.puppets --output=ROOT`."""

from __future__ import annotations

import argparse

from input_pipeline.puppets.dataset import VERSIONS, write_dataset
from maskanim_jax.errors import run_main
from maskanim_jax.utils.paths import user_path


def main() -> None:
    """Reads the flags and draws."""
    parser = argparse.ArgumentParser(
        prog="python -m input_pipeline.puppets",
        description="Draws videos of articulated figures: folders of PNG frames in ROOT/train, ROOT/validation, ROOT/test.",
    )
    parser.add_argument("--output", type=user_path, required=True, help="ROOT, the folder to create")
    parser.add_argument("--size", type=int, default=64, help="side of a frame, 32 to 512 pixels (default 64)")
    parser.add_argument("--train_identities", type=int, default=200, help="identities for training (default 200)")
    parser.add_argument(
        "--validation_identities",
        type=int,
        default=20,
        help="identities that choose the best checkpoint; 0: no validation split (default 20)",
    )
    parser.add_argument("--test_identities", type=int, default=20, help="identities for testing (default 20)")
    parser.add_argument("--clips_per_identity", type=int, default=2, help="videos per identity (default 2)")
    parser.add_argument("--frames", type=int, default=24, help="frames per video, at 12 per second (default 24)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the figures (default 0)")
    parser.add_argument(
        "--version",
        type=int,
        default=VERSIONS[-1],
        choices=VERSIONS,
        help="version of the drawing; 1: one body shape in many colours; 2: varied bodies and clothes (default)",
    )
    parser.add_argument(
        "--truth",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also write true silhouettes and joints to ROOT/truth/SPLIT/CLIP.npz (default: yes)",
    )
    options = vars(parser.parse_args())
    write_dataset(options.pop("output"), **options)


if __name__ == "__main__":
    run_main(main)
