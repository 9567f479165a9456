"""What do good and bad results look like? `python docs/pictures.py` draws the pictures of these
pages with the checkpoint that comes along.

Held-out puppets are animated by other held-out puppets, for which the ground truth is known; the
distance to it (L1, values in [0, 1]) is printed and stands beside each row. Everything is drawn
from seeds, so the pictures are the same each time on the same machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from input_pipeline.puppets.dataset import Clip, clips, render_clip, true_animation
from maskanim_jax.checkpoints import bundled
from maskanim_jax.errors import run_main
from maskanim_jax.utils.atomic_files import atomic_write
from maskanim_jax.video.strips import CAPTION_HEIGHT, strip

HERE = Path(__file__).parent / "pictures"
SHOWN = 96  # pixels of a tile
FRAMES = 24
ORDER = ("source", "driving", "driving_mask", "perturbed", "refined", "result", "truth")
LABEL = 150  # pixels of the column with the rows' names


class Case(NamedTuple):
    """One row: its name and its pictures by name, (H, W, 1 or 3) in [0, 1]."""

    label: str
    pictures: dict[str, np.ndarray]

    @property
    def distance(self) -> float:
        """L1 of the result to the truth."""
        return float(np.abs(self.pictures["result"] - self.pictures["truth"]).mean())


class Painter:
    """Animates single frames with a bundled checkpoint."""

    def __init__(self, name: str = "puppets") -> None:
        import jax

        import maskanim_jax

        run = maskanim_jax.load(name).run
        self.start = bundled.describe(name)["examples"]["source_pose"]
        self.system: Any = run.system
        self.variables = jax.jit(self.system.for_inference)(run.variables)
        self.size = run.system.frame_size
        puppets = run.config.data.puppets
        self.people = clips("test", puppets.test_identities, 1, FRAMES, puppets.seed, puppets.version)

    def frames(self, clip: Clip) -> np.ndarray:
        """(T, S, S, 3) float32 in [0, 1]."""
        return np.stack([drawn.frame for drawn in render_clip(clip, self.size)]).astype(np.float32) / 255

    def truth(self, who: Clip, driver: Clip) -> np.ndarray:
        return np.stack([drawn.frame for drawn in true_animation(who, driver, self.size)]).astype(np.float32) / 255

    def animate(
        self,
        source: np.ndarray,
        driving: np.ndarray,
        truth: np.ndarray,
        invert: bool = False,
        first: np.ndarray | None = None,
        **options: str,
    ) -> dict[str, np.ndarray]:
        """All pictures of one driving frame (S, S, 3); with `invert` as if m had drawn the
        driver's mask in negative. `first` is the driver's first frame, for relative motion.
        """
        chosen = self.system.animation_options(options)
        start = driving if first is None else first
        source_state = self.system.encode_source(self.variables, source[None], start[None])
        pose = self.system.pose(self.variables, driving[None])
        pose = 1 - pose if invert else pose
        shown = self.system.animate(self.variables, source_state, driving[None], chosen, pose)
        pictures = {name: np.asarray(values[0], np.float32) for name, values in shown.items()}
        return {**pictures, "result": pictures[self.system.result], "truth": truth}


def shrunk(frame: np.ndarray, scale: float) -> np.ndarray:
    """The frame as a camera farther away would show it: `scale` of its size, the
    border's colour around it.
    """
    side = frame.shape[0]
    small = round(side * scale)
    picture = Image.fromarray(np.rint(frame * 255).astype(np.uint8)).resize((small, small), Image.Resampling.LANCZOS)
    before = (side - small) // 2
    after = side - small - before
    return np.pad(np.asarray(picture), ((before, after), (before, after), (0, 0)), mode="edge").astype(np.float32) / 255


def sheet(cases: Sequence[Case], order: Sequence[str] = ORDER) -> Image.Image:
    """The cases one below the other, each with its name and distance on the left."""
    rows = [strip(case.pictures, order, SHOWN, captions=number == 0) for number, case in enumerate(cases)]
    height, width = sum(row.shape[0] for row in rows), rows[0].shape[1]
    page = Image.new("RGB", (LABEL + width, height), "white")
    pen, font, top = ImageDraw.Draw(page), ImageFont.load_default(12), 0
    for number, (case, row) in enumerate(zip(cases, rows, strict=True)):
        page.paste(Image.fromarray(row), (LABEL, top))
        middle = top + (CAPTION_HEIGHT if number == 0 else 0) + SHOWN / 2
        pen.multiline_text((4, middle), f"{case.label}\nL1 {case.distance:.3f}", fill="black", font=font, anchor="lm")
        top += row.shape[0]
    return page


def crop(painter: Painter, who: Clip, driver: Clip, at: int) -> list[Case]:
    source, driving, truth = painter.frames(who)[0], painter.frames(driver)[at], painter.truth(who, driver)[at]
    small = {scale: shrunk(driving, scale) for scale in (0.75, 0.5)}
    return [
        Case("cropped as in training", painter.animate(source, driving, truth)),
        *(
            Case(f"driver at {scale:.0%} of that", painter.animate(source, frame, truth))
            for scale, frame in small.items()
        ),
        Case("source at 50%", painter.animate(shrunk(source, 0.5), driving, truth)),
    ]


def first_frame(painter: Painter, who: Clip, driver: Clip, at: int) -> list[Case]:
    """The same person, driver and moment; only the pose of the source picture differs."""
    own, driving, truth = painter.frames(who), painter.frames(driver)[at], painter.truth(who, driver)[at]
    far = [float(np.abs(frame - truth).mean()) for frame in own]
    near, other = own[int(np.argmin(far))], own[int(np.argmax(far))]
    return [
        Case("source in a near pose", painter.animate(near, driving, truth)),
        Case("source in a far pose", painter.animate(other, driving, truth)),
    ]


def threshold(painter: Painter, who: Clip, driver: Clip, at: int) -> list[Case]:
    source, driving, truth = painter.frames(who)[0], painter.frames(driver)[at], painter.truth(who, driver)[at]
    return [
        Case(f"--threshold={rho}", painter.animate(source, driving, truth, threshold=rho))
        for rho in ("0", "median", "100", "200", "250")
    ]


def scale(painter: Painter, who: Clip, driver: Clip, at: int) -> list[Case]:
    source, driving, truth = painter.frames(who)[0], painter.frames(driver)[at], painter.truth(who, driver)[at]
    return [
        Case(f"--mask_scale={text}", painter.animate(source, driving, truth, mask_scale=text))
        for text in ("0.5", "0.75", "1", "1.25")
    ]


def inverted(painter: Painter, who: Clip, driver: Clip, at: int) -> list[Case]:
    source, driving, truth = painter.frames(who)[0], painter.frames(driver)[at], painter.truth(who, driver)[at]
    return [
        Case("driver's mask as it is", painter.animate(source, driving, truth)),
        Case("driver's mask inverted", painter.animate(source, driving, truth, invert=True)),
    ]


def reconstructions(painter: Painter, at: int = 12) -> Image.Image:
    """Four test identities, reconstructed from the first frame of their own clips, with all
    intermediate pictures.
    """
    rows = []
    for number, who in enumerate(painter.people[:4]):
        frames = painter.frames(who)
        shown = painter.system.reconstruct(painter.variables, frames[:1], frames[at : at + 1])
        pictures = {name: np.asarray(values[0], np.float32) for name, values in shown.items()}
        rows.append(strip(pictures, list(pictures), SHOWN, captions=number == 0))
    return Image.fromarray(np.concatenate(rows))


def first_minute(painters: Sequence[Painter], who: Clip, driver: Clip) -> Image.Image:
    """Six moments: the driver above, each checkpoint's result below, its still image on the left."""
    driving, truth = painters[0].frames(driver), painters[0].truth(who, driver)
    moments = range(0, FRAMES, FRAMES // 6)
    lines = [(" ", np.ones_like(truth[0]), "driving", [driving[at] for at in moments])]
    for painter in painters:
        source = still(painter, who, truth)
        results = [painter.animate(source, driving[at], truth[at], first=driving[0])["result"] for at in moments]
        lines.append(("source", source, painter.system.name.replace("_", " "), results))
    rows = []
    for left, picture, name, others in lines:
        tiles = {left: picture} | {
            f"{name if number == 0 else ''} {at}": frame
            for number, (at, frame) in enumerate(zip(moments, others, strict=True))
        }
        rows.append(strip(tiles, tuple(tiles), SHOWN, captions=True))
    return Image.fromarray(np.concatenate(rows))


def still(painter: Painter, who: Clip, truth: np.ndarray) -> np.ndarray:
    """The source picture: its own first frame, or the driver's first pose, as in the
    checkpoint's examples.
    """
    return truth[0] if painter.start == "driver" else painter.frames(who)[0]


def ten_pairs(painter: Painter, at: int = 12) -> list[Case]:
    """The first ten test identities, each animated by one of the last ten."""
    cases, people = [], painter.people
    for number in range(10):
        who, driver = people[number], people[-1 - number]
        truth, driving = painter.truth(who, driver), painter.frames(driver)
        source = still(painter, who, truth)
        label = f"{who.identity} by {driver.identity}"
        cases.append(Case(label, painter.animate(source, driving[at], truth[at], first=driving[0])))
    return cases


SHEETS = {
    "crop": crop,
    "first-frame": first_frame,
    "threshold": threshold,
    "mask-scale": scale,
    "masks-inverted": inverted,
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; raises UserError."""
    flags = argparse.ArgumentParser(description="Draws the pictures of the documentation with the shipped checkpoint.")
    flags.add_argument("--output", type=Path, default=HERE, help="folder to write to (default: docs/pictures)")
    args = flags.parse_args(argv)
    painters = [Painter(name) for name in ("puppets", "puppets-fomm")]
    painter = painters[0]
    ten = {each.system.name: ten_pairs(each) for each in painters}
    pages = {
        "ten-pairs": sheet(ten["perturbed_masks"], ORDER),
        "ten-pairs-fomm": sheet(ten["fomm"], ("source", "driving", "result", "truth")),
    }
    pages |= {f"reconstructions-{each.system.name.replace('_', '-')}": reconstructions(each) for each in painters}
    # The pair in the middle: its distance to the truth is the fifth of ten.
    middle = sorted(range(10), key=lambda number: ten["perturbed_masks"][number].distance)[4]
    who, driver, at = painter.people[middle], painter.people[-1 - middle], 12
    pages["first-minute"] = first_minute(painters, who, driver)
    for name, cases in ten.items():
        for case in cases:
            print(f"{name}: {case.label}: L1 {case.distance:.4f}")
    for name, make in SHEETS.items():
        cases = make(painter, who, driver, at)
        pages[name] = sheet(cases)
        for case in cases:
            print(f"{name}: {case.label}: L1 {case.distance:.4f}")
    args.output.mkdir(parents=True, exist_ok=True)
    for name, page in pages.items():
        with atomic_write(args.output / f"{name}.png") as temporary:
            page.save(temporary, format="PNG", optimize=True)
    return 0


if __name__ == "__main__":
    run_main(main)
