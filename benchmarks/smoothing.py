"""How does smoothing over time (`--smooth`) change flicker and reconstruction?

Run `python -m benchmarks.smoothing RUN --data SHARDS`. Every held-out clip is animated from
its own first frame, so the ground truth is the driver itself. Flicker is the mean absolute
second difference of the frames over time (|x_(t+1) - 2 x_t + x_(t-1)|, pixels in [0, 1]) minus
the driver's; below 0 the result is smoother than the ground truth. As in reconstruction,
Perturbed Masks runs without P_test and r (--ablation=no_id), and FOMM with absolute motion.
Then each clip animates the next clip's first frame with the method's default options; there
only flicker can be measured. With `--noise`, drivers are still frames with camera noise, so
all motion in the result is flicker.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
from tqdm import tqdm

from input_pipeline.shards import open_split
from maskanim_jax.animation.generate import animate
from maskanim_jax.checkpoints.loading import load_run, saved_config
from maskanim_jax.distributed import setup
from maskanim_jax.errors import UserError, run_main

STILL_FRAMES = 16
AS_TRUTH = ({"ablation": "no_id"}, {"motion": "absolute"})
"""Options that turn animation into reconstruction; each system uses those that it has."""


def flicker(frames):
    """The mean absolute second difference over time of (N, H, W, 3) frames in [0, 1]."""
    return float(np.abs(frames[2:] - 2 * frames[1:-1] + frames[:-2]).mean())


def own_options(system, smooth):
    """The reconstruction options that this system has, and the strength."""
    for given in AS_TRUTH:
        try:
            return system.animation_options({**given, "smooth": str(smooth)})
        except UserError:
            continue
    raise UserError(f"{system.name} has no options that turn animation into reconstruction: add them to AS_TRUTH")


def drivers(split, clips, noise):
    """Videos (N, S, S, 3) uint8 of the first clips; with `noise`, their first frames repeated with
    noise of that standard deviation.
    """
    videos = [np.stack([split.frame(number, i) for i in range(split.clips[number].count)]) for number in range(clips)]
    if not noise:
        return videos
    draw = np.random.default_rng(0)
    still = (video[:1] + draw.normal(0, 255 * noise, (STILL_FRAMES, *video.shape[1:])) for video in videos)
    return [np.clip(np.rint(frames), 0, 255).astype(np.uint8) for frames in still]


def measure(run, videos, strengths):
    """Rows (strength, L1, flicker beyond the driver's, the same across
    identities), means over clips.
    """
    result = run.system.result

    def made(source, driving, options):
        return np.stack(
            [one[result] for one in animate(run.system, run.variables, source, driving, options, names=(result,))]
        )

    found = {strength: [] for strength in strengths}
    for (number, video), strength in tqdm(list(itertools.product(enumerate(videos), strengths)), unit="clip"):
        truth = video.astype(np.float32) / 255
        own = made(video[0], video, own_options(run.system, strength))
        across = made(
            videos[(number + 1) % len(videos)][0], video, run.system.animation_options({"smooth": str(strength)})
        )
        of_driver = flicker(truth)
        found[strength].append((np.abs(own - truth).mean(), flicker(own) - of_driver, flicker(across) - of_driver))
    return [(strength, *np.mean(rows, 0)) for strength, rows in found.items()], flicker_of(videos)


def flicker_of(videos):
    """The flicker of the drivers themselves."""
    return float(np.mean([flicker(video.astype(np.float32) / 255) for video in videos]))


def main():
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("run", type=Path, nargs="+", help="workdirs")
    flags.add_argument("--data", type=Path, required=True, help="folder of shards; its test split is used")
    flags.add_argument("--clips", type=int, default=20)
    flags.add_argument("--strengths", default="0,0.3,0.5,0.7")
    flags.add_argument(
        "--noise", type=float, default=0.0, help="use still drivers with noise of this standard deviation, such as 0.02"
    )
    args = flags.parse_args()
    setup.configure_jax(saved_config(args.run[0]))
    split = open_split(args.data, "test")
    videos = drivers(split, min(args.clips, len(split.clips)), args.noise)
    for path in args.run:
        run = load_run(path)
        rows, of_driver = measure(run, videos, [float(text) for text in args.strengths.split(",")])
        print(
            f"\n{path.name} ({run.system.name}, step {run.step}), {len(videos)} clips, drivers' own flicker {of_driver:.4f}"
        )
        print("| `--smooth` | L1 | ratio | flicker beyond the driver's | of another identity | ratio |")
        print("| --- | --- | --- | --- | --- | --- |")
        for strength, l1, own, across in rows:
            _, l1_off, _, across_off = rows[0]
            print(
                f"| {strength:g} | {l1:.4f} | {l1 / l1_off:.2f} | {own:+.4f} | {across:+.4f} | "
                f"{(across + of_driver) / (across_off + of_driver):.2f} |"
            )


if __name__ == "__main__":
    run_main(main)
