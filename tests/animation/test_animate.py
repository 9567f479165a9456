"""Does animation process every frame, keep bounds and options, and end with files or a one-sentence error?"""

import sys
import types
from fractions import Fraction
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from echo_system import ONE, SIZE, Echo, numbered, save
from ml_collections import ConfigDict
from PIL import Image

from maskanim_jax.animate import main, parser
from maskanim_jax.animation.generate import animate, nearest_frame
from maskanim_jax.errors import UserError, run_main
from maskanim_jax.systems.interface import Variables
from maskanim_jax.video.reader import open_frames
from maskanim_jax.video.strips import CAPTION_HEIGHT, grid, strip, to_uint8


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Runs the command on Echo; the checkpoint module is replaced, so no checkpoint is needed."""
    system = Echo()
    loaded = types.ModuleType("maskanim_jax.checkpoints.loading")
    loaded.saved_config = lambda path: ConfigDict({"num_cpu_devices": 1})
    loaded.load_run = lambda path: types.SimpleNamespace(config=None, system=system, variables=ONE, step=7)
    monkeypatch.setitem(sys.modules, "maskanim_jax.checkpoints.loading", loaded)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (50, 40), (255, 0, 0)).save("source.png")

    def run(*flags):
        return main(["--checkpoint=run", *flags])

    run.system = system
    return run


def test_every_frame_of_an_incomplete_last_batch_comes_out_once():
    system = Echo()
    frames = numbered(37)
    results = list(animate(system, ONE, frames[0], frames, (), batch=8))
    assert [round(float(r["fine"][0, 0, 0]) * 255 / 5) for r in results] == list(range(37))
    assert all(r["fine"].dtype == np.float32 for r in results)


def test_all_lengths_share_one_compilation():
    system = Echo()
    for count in (3, 8, 11):
        assert len(list(animate(system, ONE, numbered(1)[0], numbered(count), (), batch=8))) == count
    assert system.traced == 1


def test_the_driving_is_read_no_further_ahead_than_a_batch():
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield np.zeros((20, 30, 3), np.uint8)

    results = animate(Echo(), ONE, np.zeros((9, 9, 3), np.uint8), endless(), (), batch=4)
    for given in range(1, 30):
        next(results)
        assert read - given <= 3


def test_frames_of_any_size_become_square():
    result = next(animate(Echo(), ONE, numbered(1, 90, 40)[0], numbered(1, 17, 200), (), batch=2, fit="pad"))
    assert result["fine"].shape == (SIZE, SIZE, 3)
    assert result["mask"].shape == (SIZE // 2, SIZE // 2, 1)


def test_the_command_keeps_count_and_rate(command):
    save("driving.mp4", numbered(37, 48, 64), Fraction(30000, 1001))
    assert command("--source=source.png", "--driving=driving.mp4", "--output=out.mp4", "--threshold=median") == 0
    source = open_frames("out.mp4")
    assert (source.fps, len(list(source))) == (Fraction(30000, 1001), 37)


def test_folder_in_folder_out_is_lossless(command):
    save("driving/", numbered(11))
    command("--source=source.png", "--driving=driving", "--output=out/", "--batch=4")
    assert sorted(p.name for p in Path("out").iterdir()) == [*(f"{i:06d}.png" for i in range(11)), "clip.json"]
    read = np.stack(list(open_frames("out")))[:, 0, 0, 0]
    assert np.abs(read.astype(int) - 5 * np.arange(11)).max() <= 1  # Echo answers in bfloat16


def test_a_video_as_source_gives_its_first_frame_and_the_strip_shows_all(command):
    save("clip/", [np.full((SIZE, SIZE, 3), 200, np.uint8), *numbered(3)])
    save("driving/", numbered(3))
    command("--source=clip", "--driving=driving", "--output=out.gif", "--save_intermediates=strip/")
    strips = list(open_frames("strip"))
    assert strips[0].shape == (SIZE + CAPTION_HEIGHT, 4 * SIZE, 3)
    below = strips[2][CAPTION_HEIGHT:]
    assert [int(below[5, column * SIZE + 5, 0]) for column in range(4)] == [200, 10, 200, 10]


def test_an_option_that_the_system_does_not_have_is_refused(command):
    save("driving/", numbered(2))
    with pytest.raises(UserError, match="ablation"):
        command("--source=source.png", "--driving=driving", "--output=out.mp4", "--ablation=no_ref")
    assert not Path("out.mp4").exists()


def test_the_flags_are_those_of_all_systems_and_each_says_whose_it_is():
    text = " ".join(parser().format_help().split())
    for name in ("threshold", "mask_scale", "ablation", "motion", "adapt_scale"):
        assert f"--{name} [VALUE]" in text
    assert "(fomm) relative" in text
    assert "(perturbed_masks) mask values" in text


def test_an_option_without_a_value_is_true(command):
    save("driving/", numbered(2))
    with pytest.raises(UserError, match="adapt_scale"):
        command("--source=source.png", "--driving=driving", "--output=out.mp4", "--adapt_scale")
    assert parser().parse_args(["--checkpoint=a", "--output=b", "--adapt_scale"]).adapt_scale == "true"


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_the_best_frame_is_the_nearest_wherever_it_lies_in_a_batch(batch):
    frames = numbered(10)
    for wanted in (0, 4, 9):
        assert nearest_frame(Echo(), ONE, frames[wanted], iter(frames), batch=batch)[0] == wanted
    assert nearest_frame(Echo(), ONE, frames[5], [frames[4], frames[6], frames[4]])[0] == 0  # the first among equals


def test_a_best_frame_that_cannot_be_compared_is_a_sentence():
    class Lost(Echo):
        def pose_distance(self, variables, source, driving):
            return jnp.full(driving.shape[0], jnp.nan)

    with pytest.raises(UserError, match="--find_best_frame"):
        nearest_frame(Lost(), ONE, numbered(1)[0], numbered(3))


def test_the_best_frame_begins_the_animation_and_is_named(command, capsys, monkeypatch):
    save("driving/", numbered(20))
    save("still/", [np.full((SIZE, SIZE, 3), 61, np.uint8)])
    animations = []

    def spied(*args, **kwargs):
        animations.append(list(animate(*args, **{**kwargs, "names": ()})))
        return animations[0]

    monkeypatch.setattr(sys.modules["maskanim_jax.animation.jobs"], "animate", spied)
    command("--source=still", "--driving=driving", "--output=out/", "--find_best_frame")
    assert "frame 12 is nearest" in capsys.readouterr().out
    assert round(float(animations[0][0]["first"][0, 0, 0]) * 255) == 60
    assert len(animations[0]) == len(list(open_frames("out"))) == 20


def test_a_warning_is_one_line_and_does_not_stop(command, capsys):
    save("driving/", numbered(3))
    save("bright/", [np.full((SIZE, SIZE, 3), 250, np.uint8)])
    for source, lines in (("bright", ["warning: they differ"]), ("driving", [])):
        command(f"--source={source}", "--driving=driving", f"--output={source}-out/")
        said = capsys.readouterr().err.replace("\r", "\n").splitlines()
        assert [line for line in said if "warning" in line] == lines
        assert len(list(open_frames(f"{source}-out"))) == 3


def test_bad_input_leaves_the_old_output_and_loads_nothing(command, monkeypatch):
    save("driving.mp4", numbered(30))
    Path("text.mp4").write_text("no video")
    Path("cut.mp4").write_bytes(Path("driving.mp4").read_bytes()[:-100])
    Path("out.mp4").write_bytes(b"the old result")
    monkeypatch.setattr(sys.modules["maskanim_jax.checkpoints.loading"], "load_run", pytest.fail)
    for source, driving, output, word in (
        ("source.png", "text.mp4", "out.mp4", "text.mp4"),
        ("source.png", "cut.mp4", "out.mp4", "cut.mp4"),
        ("source.png", "missing", "out.mp4", "missing"),
        ("text.mp4", "driving.mp4", "out.mp4", "text.mp4"),
        ("source.png", "driving.mp4", "driving.mp4", "input"),
        ("source.png", "driving.mp4", "source.png/out.mp4", "cannot be written"),
    ):
        with pytest.raises(UserError, match=word):
            command(f"--source={source}", f"--driving={driving}", f"--output={output}")
    assert Path("out.mp4").read_bytes() == b"the old result"
    assert len(list(open_frames("driving.mp4"))) == 30


def test_the_command_exits_with_a_sentence(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_main(lambda: command("--source=source.png", "--driving=none.mp4", "--output=out.mp4"))
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: none.mp4 does not exist;")
    with pytest.raises(SystemExit) as stopped:
        command("--source=source.png", "--driving=a.mp4", "--output=out.mp4", "--no_such_flag=1")
    assert stopped.value.code == 2


def test_a_csv_makes_one_output_a_row_with_one_compilation(command):
    Path("data").mkdir()
    save("data/a#1.mp4", numbered(5))
    save("b.mp4", numbered(9))
    Path("pairs.csv").write_text(
        f"source,driving,note\na#1.mp4,b.mp4,x\nsource.png,{Path('b.mp4').resolve()},y\na#1.mp4,b.mp4,x\n"
    )
    command("--pairs=pairs.csv", "--data=data", "--output=out", "--save_intermediates=strips")
    names = ["0000-a#1-b.mp4", "0001-source-b.mp4", "0002-a#1-b.mp4"]
    assert sorted(p.name for p in Path("out").iterdir()) == names
    assert sorted(p.name for p in Path("strips").iterdir()) == names
    assert all(len(list(open_frames(Path("out") / name))) == 9 for name in names)
    assert command.system.traced == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("source,driving\nsource.png,b.mp4\nsource.png,gone.mp4\n", r"line 3: the driving gone\.mp4"),
        ("source,driving\nsource.png\n", "line 2 has no driving"),
        ("source,driving\nsource.png,text.mp4\n", r"line 2: text\.mp4 is not a video"),
        ("image,video\na,b\n", "no column 'source'"),
        ("source,driving\n", "lists no pairs"),
        ("", "no column 'source'"),
    ],
)
def test_a_bad_row_is_named_with_its_line_before_any_work(command, text, sentence):
    save("b.mp4", numbered(2))
    Path("text.mp4").write_text("no video")
    Path("pairs.csv").write_text(text)
    with pytest.raises(UserError, match=sentence):
        command("--pairs=pairs.csv", "--output=out/")
    assert not Path("out").exists() or not list(Path("out").iterdir())


def test_pictures_are_rounded_clipped_and_grey():
    values = np.array([[[-1.0], [0.5], [2.0], [np.nan]]], np.float32)
    assert to_uint8(values)[0].tolist() == [[0] * 3, [128] * 3, [255] * 3, [0] * 3]


def test_strips_resize_masks_without_blur_and_grids_fill_with_white():
    mask = np.array([[[0.0], [1.0]], [[1.0], [0.0]]], np.float32)
    row = strip({"mask": mask, "fine": np.zeros((8, 8, 3))}, ["mask", "fine"], 8)
    assert (row[:4, :4] == 0).all()
    assert (row[:4, 4:8] == 255).all()
    both = grid([row, row[:, :8]])
    assert both.shape == (16, 16, 3)
    assert (both[8:, 8:] == 255).all()


def test_variables_are_folded_once_for_all_videos_of_a_checkpoint(monkeypatch):
    folded = []
    system = Echo()
    monkeypatch.setattr(Echo, "for_inference", lambda self, variables: folded.append(1) or variables)
    mine = Variables({"gain": jnp.float32(0.5)}, {})
    for _ in range(3):
        list(animate(system, mine, numbered(1)[0], numbered(2), (), batch=2))
    assert len(folded) == 1
    other = Variables({"gain": jnp.float32(1)}, {})
    result = next(animate(system, other, numbered(1)[0], numbered(11)[-1:], (), batch=2))
    assert round(float(result["fine"][0, 0, 0]) * 255) == 50  # not the earlier variables
