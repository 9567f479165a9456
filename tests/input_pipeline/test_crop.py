"""Does the crop contain the subject, and are uncertain cases reported rather than guessed?"""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import clip, save, save_raw
from PIL import Image

from input_pipeline.preparation.boxes import read_boxes
from input_pipeline.preparation.cropping import write_boxes
from input_pipeline.preparation.subject import Found, Part, find_parts, square_around
from input_pipeline.prepare import prepare
from input_pipeline.puppets.dataset import clips, render_clip
from maskanim_jax.crop import main
from maskanim_jax.errors import UserError
from maskanim_jax.video import faces
from maskanim_jax.video.reader import open_frames

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="module")
def puppet(tmp_path_factory):
    """Frames of a puppet of 96 pixels at (130, 20) of a wide still frame, and the union of its silhouettes there."""
    shown = list(render_clip(clips("train", 3, 1, 40, 5)[2], 96))
    frames = np.full((40, 144, 256, 3), 90, np.uint8)
    frames += np.linspace(0, 60, 256).astype(np.uint8)[None, None, :, None]
    place = np.zeros((144, 256), bool)
    for frame, rendering in zip(frames, shown, strict=True):
        cover = rendering.silhouette[..., None] / 255
        part = frame[20:116, 130:226]
        part[:] = np.round(rendering.frame * cover + part * (1 - cover))
        place[20:116, 130:226] |= rendering.silhouette > 128
    return save(tmp_path_factory.mktemp("puppet") / "p1.mp4", frames), place


def inside(place, box):
    return place[box[1] : box[3], box[0] : box[2]].sum() / place.sum()


def blob(x, y, count=25, width=200, height=100, side=30):
    """A square of noise that trembles at (x[t], y[t]) before grey."""
    rng = np.random.default_rng(0)
    frames = np.full((count, height, width, 3), 128, np.uint8)
    for t in range(count):
        left, top = int(x[t]), int(y[t])
        frames[t, top : top + side, left : left + side] = rng.integers(0, 2, (side, side, 1)) * 255
    return frames


def test_the_box_holds_the_whole_puppet_and_little_else(puppet):
    path, place = puppet
    found = find_parts(path)
    (part,) = found.parts
    ys, xs = np.nonzero(place)
    longer = max(np.ptp(xs), np.ptp(ys)) + 1
    assert found.finder == "motion"
    assert (part.start, part.end) == (0, 40)
    assert inside(place, part.box) > 0.99
    assert part.box[2] - part.box[0] == part.box[3] - part.box[1] <= 1.35 * longer


@pytest.mark.parametrize("number", range(4))
def test_a_puppet_that_fills_its_frame_is_not_cut(number, tmp_path):
    shown = list(render_clip(clips("test", 4, 1, 30, 1)[number], 64))
    for i, rendering in enumerate(shown):
        Image.fromarray(rendering.frame).save(tmp_path / f"{i}.png")
    (part,) = find_parts(tmp_path).parts
    assert inside(np.any([r.silhouette > 128 for r in shown], axis=0), part.box) > 0.97


def test_flicker_of_the_light_moves_no_box(tmp_path):
    frames = blob([140] * 25, [50] * 25).astype(int) + np.arange(25)[:, None, None, None] % 5 * 6
    (part,) = find_parts(save(tmp_path / "c.mp4", np.clip(frames, 0, 255).astype(np.uint8))).parts
    assert part.box[0] in range(132, 141)
    assert part.box[2] - part.box[0] in range(34, 44)


def test_a_subject_that_travels_is_split_into_ranges_that_cover_the_clip(tmp_path):
    x = np.r_[np.full(50, 10), np.full(50, 160)]
    path = save(tmp_path / "walk.mp4", blob(x, [40] * 100, count=100))
    one, two = find_parts(path).parts
    assert (one.start, one.end, two.start, two.end) == (0, 50, 50, 100)
    assert one.box[2] < 60
    assert two.box[0] > 140


def test_squares_stay_inside_are_even_and_say_what_does_not_fit():
    assert square_around((0.0, 0.0, 0.1, 0.2), (200, 100), 0.0) == ((0, 0, 20, 20), True)
    box, fits = square_around((0.9, 0.9, 1.0, 1.0), (200, 101), 0.1)
    assert fits
    assert box == (176, 77, 200, 101)
    assert square_around((0.0, 0.0, 1.0, 1.0), (200, 101), 0.1) == ((50, 0, 150, 100), False)


def test_the_crop_keeps_rate_and_sound_and_shows_the_box(puppet, tmp_path):
    frames = np.stack(list(open_frames(puppet[0])))
    path = save_raw(tmp_path / "in.mp4", "libx264", frames, rate=Fraction(30000, 1001), sound="aac")
    main([f"--input={path}", f"--output={tmp_path / 'out.mp4'}", f"--csv={tmp_path / 'b.csv'}"])
    (row,) = read_boxes(tmp_path / "b.csv")["in.mp4"]
    x0, y0, x1, y1 = row.clip_range.box
    written = open_frames(tmp_path / "out.mp4")
    assert written.fps == Fraction(30000, 1001)
    result = np.stack(list(written)).astype(int)
    assert result.shape == (40, y1 - y0, x1 - x0, 3)
    assert np.abs(result - np.stack(list(open_frames(path)))[:, y0:y1, x0:x1]).mean() < 4
    import av

    with av.open(str(tmp_path / "out.mp4")) as container:
        assert len(container.streams.audio) == 1


def test_prepare_takes_the_table(puppet, tmp_path):
    for split in ("train", "test"):
        (tmp_path / "root" / split).mkdir(parents=True)
        (tmp_path / "root" / split / f"{split}.mp4").write_bytes(puppet[0].read_bytes())
    inputs = [str(tmp_path / "root" / split / f"{split}.mp4") for split in ("train", "test")]
    main(["--input", *inputs, f"--csv={tmp_path / 'boxes.csv'}"])
    report = prepare(
        tmp_path / "root", tmp_path / "shards", size=32, encoding="png", boxes=tmp_path / "boxes.csv", progress=False
    )
    assert not report["skipped"]
    assert {name: split["clips"] for name, split in report["splits"].items()} == {"train": 1, "test": 1}


def test_rows_of_ranges_name_their_frames_and_whole_clips_do_not(tmp_path):
    box = (0, 0, 8, 8)
    whole, cut = Found([Part(0, 9, box)], 9, "box", []), Found([Part(0, 5, box), Part(5, 9, box)], 9, "", [])
    write_boxes(tmp_path / "b.csv", {"a.mp4": whole, "b,\u00e9.mp4": cut})
    rows = read_boxes(tmp_path / "b.csv")
    assert rows["a.mp4"][0].clip_range.suffix == ""
    assert [row.clip_range.suffix for row in rows["b,\u00e9.mp4"]] == ["#0-5", "#5-9"]


def test_pictures_need_a_face_or_a_box(tmp_path, monkeypatch):
    picture = tmp_path / "photo.png"
    Image.fromarray(clip(1, 60, 90)[0]).save(picture)
    monkeypatch.setattr(faces, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"photo.png is a single image.*maskanim_jax\[face\].*--box"):
        find_parts(picture)
    with pytest.raises(UserError, match="nothing moves"):
        find_parts(picture, "motion")
    main([f"--input={picture}", "--box=10,20,40,40", f"--output={tmp_path / 'out.png'}"])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), clip(1, 60, 90)[0][15:45, 10:40])


def test_faces_are_framed_with_the_head_and_small_ones_left_to_motion(tmp_path, puppet):
    picture = tmp_path / "photo.png"
    Image.fromarray(clip(1, 200, 300)[0]).save(picture)
    (part,) = find_parts(picture, detect=lambda frame: (100, 80, 140, 120)).parts
    assert part == Part(0, 1, (76, 56, 164, 144))
    assert find_parts(puppet[0], detect=lambda frame: (10, 10, 18, 18)).finder == "motion"
    assert find_parts(puppet[0], detect=lambda frame: (10, 10, 50, 50)).finder == "face"
    with pytest.raises(UserError, match="no face was found"):
        find_parts(picture, detect=lambda frame: None)


def test_nothing_is_guessed_of_a_still_clip_and_the_old_output_stays(tmp_path):
    path = save(tmp_path / "still.mp4", np.full((10, 48, 64, 3), 99, np.uint8))
    (tmp_path / "out.mp4").write_bytes(b"precious")
    with pytest.raises(UserError, match=r"nothing moves in .*still.mp4"):
        main([f"--input={path}", f"--output={tmp_path / 'out.mp4'}"])
    assert (tmp_path / "out.mp4").read_bytes() == b"precious"
    with pytest.raises(UserError, match="outside"):
        find_parts(path, box=(70, 0, 90, 20))


def test_what_fails_among_several_is_named_and_the_rest_written(puppet, tmp_path):
    still = save(tmp_path / "still.mp4", np.full((10, 48, 64, 3), 99, np.uint8))
    with pytest.raises(UserError, match=r"1 of 2 inputs were skipped.*still.mp4"):
        main(["--input", str(still), str(puppet[0]), f"--csv={tmp_path / 'b.csv'}", f"--output={tmp_path / 'cut'}"])
    assert list(read_boxes(tmp_path / "b.csv")) == ["p1.mp4"]
    assert os.listdir(tmp_path / "cut") == ["p1.mp4"]


@pytest.mark.subprocess
def test_the_command_ends_with_a_sentence(tmp_path):
    command = [sys.executable, "-m", "maskanim_jax.crop", f"--input={tmp_path / 'none.mp4'}", "--csv=b.csv"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert "does not exist" in ended.stderr


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real clips of ../shared/data are not here")
def test_a_real_talker_in_a_wide_still_frame_is_found(tmp_path):
    frames = np.full((50, 180, 320, 3), 120, np.uint8)
    with open_frames(SHARED / "faces_other" / "fomm-04.mp4") as talker:
        for frame, shown in zip(frames, talker, strict=False):
            frame[60:156, 200:296] = np.asarray(Image.fromarray(shown).resize((96, 96)))
    ((start, end, box),) = find_parts(save(tmp_path / "talk.mp4", frames)).parts
    assert (start, end) == (0, 50)
    assert box[0] > 180
    assert 40 <= box[2] - box[0] <= 120
    assert box[0] < 248 < box[2]
