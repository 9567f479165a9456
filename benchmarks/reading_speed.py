"""How fast are pairs read, compared with the released loaders?

`python benchmarks/reading_speed.py` draws clips of 256 x 256 and reads two frames of each in three
ways, in turn. It measures CPU seconds of the whole process:

- ours: training batches of 16 pairs from the shards, drawn, decoded and stacked;
- png: list a folder of PNG frames, read two with imageio;
- mp4: read the whole H.264 file with imageio (PyAV) and take two frames.

It needs imageio (pip install imageio), which the project itself does not need.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from input_pipeline.pairs import PairStream
from input_pipeline.prepare import prepare
from input_pipeline.shards import open_split
from maskanim_jax.errors import UserError, run_main
from maskanim_jax.video.reader import open_frames
from maskanim_jax.video.writer import VideoWriter

SIDE = 256
BATCH = 16


def texture(rng, side):
    """Noise at all scales, (side, side, 3) float32: as PNG and JPEG it is as
    large as a Tai-Chi frame.
    """
    total = np.zeros((side, side, 3), np.float32)
    for cells in (8, 16, 32, 64, 128, 256):
        noise = rng.normal(size=(cells, cells, 3)).astype(np.float32) * 30 * (8 / cells) ** 0.7
        planes = [Image.fromarray(noise[..., c]).resize((side, side), Image.Resampling.BICUBIC) for c in range(3)]
        total += np.stack([np.asarray(plane) for plane in planes], axis=-1)
    return np.clip(total + 128, 0, 255).astype(np.uint8)


def drawn(seed, count):
    """A textured disc that moves over a textured background, which moves differently."""
    rng = np.random.default_rng(seed)
    behind, before = texture(rng, SIDE + 64), texture(rng, SIDE + 64)
    y, x = np.mgrid[:SIDE, :SIDE]
    for i in range(count):
        left, top = int(32 + 30 * np.sin(i / 20 + seed)), int(32 + 30 * np.cos(i / 15))
        disc = (x - 128 - 50 * np.cos(i / 12)) ** 2 + (y - 128 - 50 * np.sin(i / 12)) ** 2 < 60**2
        moved = [picture[t : t + SIDE, s : s + SIDE] for picture, t, s in ((before, left, top), (behind, top, left))]
        yield np.where(disc[..., None], *moved)


def write(folder, clips, count, videos):
    """Writes the same frames as PNG in ROOT/train/*/ (for the shards) and as mp4."""
    (folder / "mp4").mkdir()
    for number in tqdm(range(clips), desc="clips", unit="clip"):
        frames = drawn(number, count)
        if videos:
            source = open_frames(videos[number])
            frames = (frame for _, frame in zip(range(count), source, strict=False))
        name = f"{number:02}#clip"
        pngs = folder / "root/train" / name
        pngs.mkdir(parents=True)
        with VideoWriter(folder / "mp4" / f"{name}.mp4", Fraction(25)) as writer:
            for i, frame in enumerate(frames):
                if frame.shape != (SIDE, SIDE, 3):
                    raise UserError(f"{videos[number]} is not {SIDE} x {SIDE}; give videos of that size")
                writer.write(np.ascontiguousarray(frame))
                Image.fromarray(frame).save(pngs / f"{i:05}.png")
    return folder / "root/train", folder / "mp4"


def seconds(work, times):
    """CPU seconds per call, over all threads of the process."""
    started = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - started) / times


def main(argv=None):
    """Prints CPU milliseconds per pair, and how many times as many pairs the
    shards give per CPU second.
    """
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--clips", type=int, default=3)
    flags.add_argument("--frames", type=int, default=200, help="frames per clip")
    flags.add_argument("--rounds", type=int, default=9, help="rounds over the three ways; medians are printed")
    flags.add_argument("--encoding", default="jpeg", help="image format of the shards, as in prepare")
    flags.add_argument("--quality", type=int, default=95)
    flags.add_argument("--video", nargs="*", type=Path, default=[], help="256 x 256 videos instead of drawn clips")
    args = flags.parse_args(argv)
    try:
        import imageio.v2
        import imageio.v3
    except ImportError as error:
        raise UserError("imageio is not installed; pip install imageio to compare with it") from error

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pngs, videos = write(folder, len(args.video) or args.clips, args.frames, args.video)
        prepare(folder / "root", folder / "shards", size=SIDE, encoding=args.encoding, quality=args.quality)
        shards = open_split(folder / "shards", "train")
        png_folders, mp4_files = sorted(pngs.iterdir()), sorted(videos.iterdir())
        # One core reads everything, without threads.
        stream = PairStream(shards, batch_size=BATCH, seed=0, repeats=1000, threads=0).batches()

        def pick(frames):
            return sorted(rng.integers(frames, size=2))

        def png():
            clip = png_folders[rng.integers(len(png_folders))]
            names = sorted(os.listdir(clip))
            return [imageio.v2.imread(clip / names[i]) for i in pick(len(names))]

        def mp4():
            video = imageio.v3.imread(mp4_files[rng.integers(len(mp4_files))], plugin="pyav")
            return [video[i] for i in pick(len(video))]

        ways = {"ours": (lambda: next(stream), 12), "png": (png, 60), "mp4": (mp4, 2)}
        for way, _ in ways.values():
            way()
        spent = {way: [] for way in ways}
        for _ in tqdm(range(args.rounds), desc="rounds", unit="round"):
            for way, (work, times) in ways.items():
                spent[way].append(seconds(work, times) / (BATCH if way == "ours" else 1))
        stream.close()
        sizes = {
            "png": np.mean([file.stat().st_size for clip in png_folders for file in clip.iterdir()]),
            "ours": sum(file.stat().st_size for file in shards.shards.glob("*array_record*"))
            / sum(clip.count for clip in shards.clips),
            "mp4": np.mean([file.stat().st_size for file in mp4_files]) / args.frames,
        }
    for way in ways:
        milliseconds = [1e3 * value for value in spent[way]]
        print(
            f"{way:5} {statistics.median(milliseconds):8.2f} ms of CPU per pair ({min(milliseconds):.2f} to {max(milliseconds):.2f}), "
            f"{1e3 / statistics.median(milliseconds):7.1f} pairs per second and core, {sizes[way] / 1024:6.1f} KiB per frame"
        )
    for way in ("png", "mp4"):
        ratios = [theirs / ours for theirs, ours in zip(spent[way], spent["ours"], strict=True)]
        print(
            f"ours reads {statistics.median(ratios):.1f} times as many pairs as {way} ({min(ratios):.1f} to {max(ratios):.1f})"
        )
    return 0


if __name__ == "__main__":
    run_main(main)
