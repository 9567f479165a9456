"""Which puppet clips exist, and how are they stored?

As PNG frames, with the ground truth beside them.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from input_pipeline.puppets.character import Character, draw_character
from input_pipeline.puppets.draw import JOINT_NAMES, SIZES, Rendering, render
from input_pipeline.puppets.identity import Identity, draw_identity
from input_pipeline.puppets.pose import FRAME_RATE, trajectory
from maskanim_jax.errors import UserError
from maskanim_jax.utils.paths import hidden_beside
from maskanim_jax.utils.progress import ProgressBar

FIRST_IDENTITY = {"train": 0, "validation": 10000, "test": 5000}
"""The first identity number of each split, far enough apart that splits are always disjoint."""
MOST_IDENTITIES = 5000
MOST_CLIPS = 1000  # of its identity
SETTINGS_FILE = "puppets.json"
VERSIONS = (1, 2)
"""1: one body shape in many colours (`identity.py`); 2: varied bodies and
clothes (`character.py`).
"""
_FPS = f"{FRAME_RATE.numerator}/{FRAME_RATE.denominator}"


@dataclass(frozen=True)
class Clip:
    """One video: its identity, trajectory and length. Its name has the identity before `#`."""

    name: str
    identity: int
    pose: int
    frames: int
    seed: int
    version: int = 1  # of the drawing


class Truth(NamedTuple):
    """The ground truth of a drawn clip."""

    silhouettes: np.ndarray  # (T, H, W) uint8, coverage; 255 is full
    joints: np.ndarray  # (T, J, 2) float32 pixels, x then y, pixel centres at integers, order of JOINT_NAMES


class PuppetSettings(Protocol):
    """`config.data.puppets`."""

    train_identities: int
    validation_identities: int
    test_identities: int
    clips_per_identity: int
    frames: int
    seed: int
    version: int


def clips(split: str, identities: int, clips_per_identity: int, frames: int, seed: int, version: int = 1) -> list[Clip]:
    """The clips of `split` ("train", "validation" or "test"), in order.

    Raises UserError for a number out of range.
    """
    if split not in FIRST_IDENTITY:
        raise UserError(f"puppets have the splits {', '.join(FIRST_IDENTITY)}, not {split!r}: name one of them.")
    _check("identities of one split", identities, 0, MOST_IDENTITIES)
    _check("clips of one identity", clips_per_identity, 1, MOST_CLIPS)
    _check("frames of one clip", frames, 2, 100_000)
    _check("seed", seed, 0, 2**63)
    _check("version", version, VERSIONS[0], VERSIONS[-1])
    first = FIRST_IDENTITY[split]
    return [
        Clip(f"p{identity:04d}#{k}", identity, identity * MOST_CLIPS + k, frames, seed, version)
        for identity in range(first, first + identities)
        for k in range(clips_per_identity)
    ]


def clips_of(settings: PuppetSettings, split: str) -> list[Clip]:
    """The clips of `split` of a config's `data.puppets`.

    Raises UserError for a number out of range.
    """
    identities = getattr(settings, f"{split}_identities")
    return clips(split, identities, settings.clips_per_identity, settings.frames, settings.seed, settings.version)


def identity_of(clip: Clip) -> Identity | Character:
    """The clip's identity."""
    return (draw_identity if clip.version == 1 else draw_character)(clip.seed, clip.identity)


def render_clip(clip: Clip, size: int) -> Iterator[Rendering]:
    """Yields the frames of a clip, `size` x `size` pixels."""
    return true_animation(clip, clip, size)


def true_animation(identity_clip: Clip, driving_clip: Clip, size: int) -> Iterator[Rendering]:
    """Yields the ground truth of an animation: the identity of one clip, on its background,
    in the poses of another.
    """
    identity = identity_of(identity_clip)
    for pose in trajectory(driving_clip.seed, driving_clip.pose, driving_clip.frames):
        yield render(identity, pose, size)


def write_dataset(
    root: Path,
    *,
    size: int,
    train_identities: int,
    test_identities: int,
    clips_per_identity: int,
    frames: int,
    seed: int,
    truth: bool = True,
    validation_identities: int = 0,
    version: int = 1,
) -> None:
    """Draws all splits into `root`, which appears only when complete; does
    nothing if it already exists.

    ROOT/SPLIT/CLIP/000000.png ... and clip.json (frame rate), ROOT/truth/SPLIT/CLIP.npz,
    ROOT/puppets.json (all settings). Raises UserError for numbers out of range, for a `root` that
    holds something else or cannot be written.
    """
    _check("size", size, *SIZES)
    _check("train identities", train_identities, 1, MOST_IDENTITIES)
    root = Path(root).absolute()
    splits = {
        split: clips(split, identities, clips_per_identity, frames, seed, version)
        for split, identities in (
            ("train", train_identities),
            ("validation", validation_identities),
            ("test", test_identities),
        )
        if identities or split != "validation"
    }
    settings: dict[str, object] = {
        "size": size,
        "train_identities": train_identities,
        "test_identities": test_identities,
        "clips_per_identity": clips_per_identity,
        "frames": frames,
        "seed": seed,
        "truth": truth,
        "fps": _FPS,
        "joints": list(JOINT_NAMES),
        "drawing_version": version,
    }
    if validation_identities:
        settings["validation_identities"] = validation_identities
    if _is_there(root, settings, splits):
        return
    beside: Path | None = None
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        beside = hidden_beside(root, uuid.uuid4().hex[:12])
        beside.mkdir()
        partial = beside / root.name
        partial.mkdir()
        with ProgressBar(total=sum(map(len, splits.values())) * frames, desc="puppets", unit="frame") as bar:
            for split, members in splits.items():
                (partial / split).mkdir()
                for clip in members:
                    _write_clip(partial, split, clip, size, truth, bar)
        (partial / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n")
        # only replaces an empty folder
        partial.rename(root)
    except OSError as error:
        if _is_there(root, settings, splits):  # another process was faster
            return
        raise UserError(f"{root} cannot be written ({error.strerror}): choose another folder.") from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)


def load_settings(root: Path) -> dict[str, object]:
    """The settings that `root` was drawn with. Raises UserError when it isn't a puppets folder."""
    path = Path(root) / SETTINGS_FILE
    try:
        settings = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: draw the puppets with python -m input_pipeline.puppets.") from error
    if not isinstance(settings, dict):
        raise UserError(f"{path} holds no settings: draw the puppets with python -m input_pipeline.puppets.")
    return settings


def load_truth(root: Path, split: str, clip: str) -> Truth:
    """Silhouettes and joints of one clip. Raises UserError when `root` has none for it."""
    path = Path(root) / "truth" / split / f"{clip}.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Truth(arrays["silhouettes"], arrays["joints"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} holds no ground truth: draw the puppets again, with --truth.") from error


def _check(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UserError(f"puppets: {what} must be from {low} to {high}, not {value}: choose another number.")


def _is_there(root: Path, settings: dict[str, object], splits: dict[str, list[Clip]]) -> bool:
    """Whether `root` already has exactly these puppets.

    Raises UserError when it has other content.
    """
    if not os.path.lexists(root) or (root.is_dir() and not any(root.iterdir())):
        return False
    if not (root / SETTINGS_FILE).is_file():
        raise UserError(f"{root} already exists and is not a puppets folder: choose another one or move it away.")
    there = load_settings(root)
    compared = {*settings, "validation_identities"}
    other = sorted(name for name in compared if there.get(name) != settings.get(name))
    if other:
        raise UserError(f"{root} holds puppets with another {', '.join(other)}: choose another folder or delete it.")
    for split, members in splits.items():
        for clip in members:
            folder = root / split / clip.name
            whole = (folder / "clip.json").is_file() and len(list(folder.glob("*.png"))) == clip.frames
            whole &= not settings["truth"] or (root / "truth" / split / f"{clip.name}.npz").is_file()
            if not whole:
                raise UserError(f"{folder} is incomplete: delete {root} and draw the puppets again.")
    return True


def _write_clip(root: Path, split: str, clip: Clip, size: int, truth: bool, bar: ProgressBar) -> None:
    folder = root / split / clip.name
    folder.mkdir()
    silhouettes, joints = [], []
    for t, rendering in enumerate(render_clip(clip, size)):
        Image.fromarray(rendering.frame).save(folder / f"{t:06d}.png", compress_level=1)
        silhouettes.append(rendering.silhouette)
        joints.append(rendering.joints)
        bar.update()
    (folder / "clip.json").write_text(json.dumps({"fps": _FPS}) + "\n")
    if truth:
        beside = root / "truth" / split
        beside.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(beside / f"{clip.name}.npz", silhouettes=np.stack(silhouettes), joints=np.stack(joints))
