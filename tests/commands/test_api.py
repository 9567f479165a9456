"""Is the project usable from Python: with paths or arrays, whole videos or single frames, and for training in a notebook?"""

import re
import subprocess
import sys
import warnings
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from echo_system import ONE, SIZE, Echo, numbered, save
from PIL import Image

import maskanim_jax
from maskanim_jax.animation.animator import Animator
from maskanim_jax.errors import UserError
from maskanim_jax.video.reader import open_frames
from maskanim_jax.video.strips import CAPTION_HEIGHT

ROOT = Path(__file__).parents[2]
ECHO = Animator(SimpleNamespace(config=None, system=Echo(), variables=ONE, step=7))
SOURCE = np.full((50, 40, 3), (255, 0, 0), np.uint8)


class Chosen(Echo):
    """Echo with a gain from its options, and the first driving frame added when motion is relative."""

    __hash__ = object.__hash__

    def animate(self, variables, source_state, driving, options):
        shown = super().animate(variables, source_state, driving, options)
        return shown | {"fine": float(dict(options).get("mask_scale", 1)) * driving + source_state["first"]}


def levels(frames):
    """What `numbered` wrote into each frame."""
    return [round(float(frame.mean()) / 5) for frame in frames]


def chosen():
    return Animator(SimpleNamespace(config=None, system=Chosen(), variables=ONE, step=7))


@pytest.mark.subprocess
def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, maskanim_jax; dir(maskanim_jax); maskanim_jax.__version__; maskanim_jax.UserError;"
        "print([m for m in ('jax', 'numpy', 'av', 'PIL', 'ml_collections') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_public_name_is_there_and_others_are_not():
    for name in maskanim_jax.__all__:
        assert getattr(maskanim_jax, name) is not None
        assert name in dir(maskanim_jax)
    with pytest.raises(AttributeError, match="animator"):
        _ = maskanim_jax.animator


def test_arrays_lists_and_generators_give_every_frame_once_as_uint8():
    frames = numbered(11)
    for driving in (frames, np.stack(frames), iter(frames)):
        results = list(ECHO.animate(SOURCE, driving, batch=4))
        assert levels(results) == list(range(11))
        assert all(frame.dtype == np.uint8 and frame.shape == (SIZE, SIZE, 3) for frame in results)


def test_frames_come_while_the_driving_still_runs():
    def endless():
        while True:
            yield from numbered(3)

    results = ECHO.animate(SOURCE, endless(), batch=2)
    assert levels(next(results) for _ in range(5)) == [0, 1, 2, 0, 1]


def test_paths_give_what_arrays_give(tmp_path):
    Image.fromarray(SOURCE).save(tmp_path / "source.png")
    driving = tmp_path / "driving"
    driving.mkdir()
    for i, frame in enumerate(numbered(5)):
        Image.fromarray(frame).save(driving / f"{i}.png")
    by_path = list(ECHO.outputs(tmp_path / "source.png", str(driving)))
    by_array = list(ECHO.outputs(Image.fromarray(SOURCE), np.stack(numbered(5))))
    for one, other in zip(by_path, by_array, strict=True):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_an_output_has_the_drivings_frame_rate_or_the_one_given(tmp_path):
    driving = save(tmp_path / "driving.mp4", numbered(6), Fraction(30000, 1001))
    written = ECHO.animate(SOURCE, driving, output=tmp_path / "new/out.mp4", progress=False)
    assert written == tmp_path / "new/out.mp4"
    with open_frames(written) as frames:
        assert frames.fps == Fraction(30000, 1001)
        assert len(list(frames)) == 6
    ECHO.animate(SOURCE, numbered(3), output=str(tmp_path / "out.mp4"), fps=12.5, progress=False)
    with open_frames(tmp_path / "out.mp4") as frames:
        assert frames.fps == Fraction(25, 2)
    ECHO.animate(SOURCE, numbered(3), output=f"{tmp_path}/frames/", progress=False)
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == ["000000.png", "000001.png", "000002.png", "clip.json"]


def test_options_are_numbers_or_text_and_checked_by_the_system_at_the_call():
    bright = list(chosen().animate(SOURCE, numbered(2)[1:], mask_scale=4))
    assert levels(bright) == [4 + 1]
    with pytest.raises(UserError, match="motion"):
        ECHO.animate(SOURCE, numbered(1), motion="absolute")
    with pytest.raises(UserError, match="motion"):
        ECHO.stream(SOURCE, motion="absolute")


def test_truth_values_reach_the_system_as_the_command_line_writes_them():
    from maskanim_jax.systems.fomm.options import parse_options

    system = SimpleNamespace(animation_options=parse_options)
    animator = Animator(SimpleNamespace(config=None, system=system, variables=None, step=0))
    assert animator._options({"adapt_scale": True}).adapt_scale is True
    assert animator._options({"adapt_scale": False}).adapt_scale is False


def test_a_session_gives_frame_by_frame_what_animate_gives():
    frames = numbered(6)[2:]
    session = chosen().stream(SOURCE, mask_scale=0.5)
    one_by_one = [session(frame) for frame in frames]
    together = list(chosen().animate(SOURCE, frames, batch=3, mask_scale=0.5))
    assert np.array_equal(one_by_one, together)
    assert one_by_one[0].dtype == np.uint8
    assert set(session.outputs(frames[0])) > {"mask", "fine"}
    assert set(session.outputs(frames[0], ["mask"])) == {"mask"}


def test_the_best_frame_is_the_one_from_which_motion_is_measured():
    driving = numbered(12)
    source = np.full((SIZE, SIZE, 3), 5 * 7, np.uint8)
    assert levels(chosen().animate(source, driving, find_best_frame=True)) == [7 + i for i in range(12)]
    with pytest.raises(UserError, match="twice"):
        chosen().animate(source, iter(driving), find_best_frame=True)


def test_intermediate_pictures_make_a_strip():
    shown = next(ECHO.outputs(SOURCE, numbered(1)))
    assert ECHO.strip(shown).shape == (SIZE + CAPTION_HEIGHT, 4 * SIZE, 3)
    assert set(next(ECHO.outputs(SOURCE, numbered(1), names=["mask"]))) == {"mask"}
    with pytest.raises(UserError, match="mask"):
        ECHO.outputs(SOURCE, numbered(1), names=["masks"])


def test_what_the_system_has_to_say_is_a_warning():
    white = np.full((SIZE, SIZE, 3), 255, np.uint8)
    with pytest.warns(UserWarning, match="they differ"):
        list(ECHO.animate(white, numbered(2)))
    with pytest.warns(UserWarning, match="they differ"):
        ECHO.stream(white)(numbered(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(ECHO.animate(SOURCE, numbered(2)))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"source": SOURCE / 255}, "uint8"),
        ({"source": SOURCE[..., 0]}, "three channels"),
        ({"source": "nowhere.png"}, "nowhere.png"),
        ({"driving": SOURCE}, "single frame"),
        ({"driving": "nowhere.mp4"}, "nowhere.mp4"),
        ({"batch": 0}, "batch=0"),
        ({"fps": 0, "output": "out.mp4"}, "fps=0"),
        ({"fps": 25}, "output="),
        ({"output": "out.avi"}, "out.avi"),
    ],
)
def test_what_cannot_be_is_said_at_the_call_and_nothing_is_written(arguments, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        ECHO.animate(**{"source": SOURCE, "driving": numbered(2), **arguments})
    assert not list(tmp_path.iterdir())


def test_a_result_never_replaces_an_input_and_a_failed_one_replaces_nothing(tmp_path):
    driving = save(tmp_path / "driving.mp4", numbered(3))
    for output in (driving, f"{tmp_path}/"):
        with pytest.raises(UserError, match="input"):
            ECHO.animate(SOURCE, driving, output=output)
    before = driving.read_bytes()
    with pytest.raises(UserError, match="uint8"):
        ECHO.animate(SOURCE, [*numbered(3), SOURCE / 255], output=driving, progress=False)
    assert driving.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["driving.mp4"]


def test_a_folder_without_a_run_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        maskanim_jax.load(tmp_path)
    with pytest.raises(UserError, match="best"):
        maskanim_jax.load(tmp_path, "newest")


def test_a_config_that_is_loaded_knows_its_fields():
    config = maskanim_jax.load_config("configs/taichi.py:released")
    config.optim.learning_rate = 1e-4
    with pytest.raises(AttributeError, match="learning_rate"):
        config.optim.learning_rat = 1e-4
    with pytest.raises(UserError, match="nowhere"):
        maskanim_jax.load_config("nowhere.py")


@pytest.mark.subprocess
def test_a_notebook_trains_and_animates(tiny_shards, tmp_path):
    """In a process with unparsed flags and foreign arguments, like a notebook's."""
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests/helpers")!r})
sys.argv = ["ipykernel", "-f", "kernel.json"]
import numpy as np
import maskanim_jax
from maskanim_jax.checkpoints import loading
from maskanim_jax.training import experiment, loop
from small_system import SmallSystem
from small_train import small_config

class Moving(SmallSystem):
    def animation_options(self, given): return ()
    def for_inference(self, variables): return variables
    def encode_source(self, variables, source, first): return source
    def warnings(self, source_state, options): return []
    def pose_distance(self, variables, source, driving): return driving.mean((1, 2, 3))
    def animate(self, variables, source_state, driving, options): return self.reconstruct(variables, driving, driving)

experiment.build = loading.build = lambda config: Moving()
animator = maskanim_jax.run_training(small_config({str(tiny_shards)!r}), {str(tmp_path / "run")!r})
frames = list(animator.animate(np.zeros((40, 40, 3), np.uint8), np.zeros((3, 40, 40, 3), np.uint8)))
print(animator, len(frames), frames[0].shape, frames[0].dtype)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().splitlines()[-1] == "<small of step 3, 32 x 32> 3 (32, 32, 3) uint8"


def test_the_readmes_lines_run(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    blocks = [block for block in blocks if "maskanim_jax.load" in block]
    if not blocks:
        pytest.skip("the README has no lines of Python that load a checkpoint")
    monkeypatch.chdir(tmp_path)
    Image.fromarray(SOURCE).save("photo.png")
    save("video.mp4", numbered(4))
    trained = []
    monkeypatch.setattr("maskanim_jax.load", lambda *_: ECHO, raising=False)
    monkeypatch.setattr("maskanim_jax.run_training", lambda *given: trained.append(given) or ECHO, raising=False)
    shown = []
    names = {"photo": SOURCE, "video": np.stack(numbered(4)), "camera": numbered(3), "show": shown.append}
    for block in blocks:
        exec(block, names)
    assert levels(names["frames"]) == [0, 1, 2, 3]
    assert levels(shown) == [0, 1, 2]
    assert Path("out.mp4").is_file()
    assert len(trained) == 1
