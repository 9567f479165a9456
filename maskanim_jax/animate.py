"""How is a still image animated by a driving video? See `python -m maskanim_jax.animate --help`.

The checkpoint determines the system (Perturbed Masks, FOMM). Frames are streamed, so the driving
video may have any length and size. See docs/animation.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import get_args

from maskanim_jax.animation.jobs import example_job, jobs_from_args, named, render
from maskanim_jax.checkpoints import bundled
from maskanim_jax.errors import check_at_least, run_main
from maskanim_jax.systems.options import system_flags
from maskanim_jax.utils.memory import reexec_with_huge_pages
from maskanim_jax.utils.paths import path_or_bucket, user_path, user_text
from maskanim_jax.video.images import Fit
from maskanim_jax.workdir.renamed_fields import refuse_old_names


def parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    flags = argparse.ArgumentParser(
        prog="python -m maskanim_jax.animate",
        description="Animates a still image with the motion of a driving video; the result keeps the video's timing and sound.",
        allow_abbrev=False,
    )
    add = flags.add_argument
    add(
        "--checkpoint",
        required=True,
        type=path_or_bucket,
        metavar="DIR",
        help="workdir of a run, a checkpoint in it, a FILE.pth.tar of the released code (converted into the cache), or the name "
        f"of a bundled checkpoint: {' or '.join(bundled.names())}",
    )
    add(
        "--source",
        type=user_text,
        metavar="IMAGE",
        help="image to animate, or a video for its first frame; the name of a bundled checkpoint: its example",
    )
    add(
        "--driving",
        type=user_text,
        metavar="VIDEO",
        help="video, gif, or folder of frames, of any size and length; the name of a bundled checkpoint: its example",
    )
    add(
        "--output",
        type=user_text,
        metavar="OUT",
        help="*.mp4, *.mov, *.gif, or FOLDER/ for lossless 000000.png ...",
    )
    for name, help_text in system_flags().items():
        add(f"--{name}", nargs="?", const="true", metavar="VALUE", help=help_text.replace("%", "%%"))
    add(
        "--find_best_frame",
        action="store_true",
        help="measure relative motion from the driving frame that is nearest to the source's pose, instead of the first",
    )
    add(
        "--fit",
        choices=get_args(Fit),
        default="crop",
        help="how frames are made square: centre crop (default) or padding",
    )
    add(
        "--example",
        type=user_text,
        metavar="FOLDER",
        help="animate the example of a bundled checkpoint: writes source.png, driving.mp4, out.mp4 and strip.mp4 to FOLDER",
    )
    add("--save_intermediates", type=user_text, metavar="OUT", help="also write all intermediate outputs side by side")
    add("--batch", type=int, default=8, metavar="N", help="frames per batch (default 8)")
    add(
        "--pairs",
        type=user_text,
        metavar="CSV",
        help="CSV with the columns source,driving; each row gives one result, and --output is a folder",
    )
    add("--data", type=user_path, metavar="ROOT", help="base folder of the CSV's relative paths")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """The command; raises UserError."""
    refuse_old_names(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(argv)
    check_at_least("--batch", args.batch)
    jobs = example_job(args) if args.example else jobs_from_args(args)
    from maskanim_jax.checkpoints.loading import load_run, saved_config
    from maskanim_jax.conversion.cached import run_of
    from maskanim_jax.distributed import setup

    checkpoint = run_of(args.checkpoint)
    setup.configure_jax(saved_config(checkpoint))
    run = load_run(checkpoint)
    given = {name: value for name in system_flags() if (value := getattr(args, name)) is not None}
    options = run.system.animation_options(given)
    for number, job in enumerate(jobs, 1):
        with named(job):
            label = f"{number}/{len(jobs)}" if len(jobs) > 1 else ""
            count = render(
                run, job, options, batch=args.batch, fit=args.fit, find_best_frame=args.find_best_frame, label=label
            )
        print(f"{job.output}: {count} frames, from the checkpoint of step {run.step}")
    return 0


if __name__ == "__main__":
    reexec_with_huge_pages()
    run_main(main)
