"""Does an exported animation give the same frames without this project, on every platform it was lowered for?"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from untrained_run import two_systems

from maskanim_jax.animation.generate import animate
from maskanim_jax.checkpoints.loading import load_run
from maskanim_jax.errors import UserError
from maskanim_jax.export import main
from maskanim_jax.exporting.export import export
from maskanim_jax.exporting.functions import frames_of, functions_of
from maskanim_jax.nn.kernels.native.build import disable_native
from maskanim_jax.video.strips import to_uint8

pytestmark = pytest.mark.slow

pytest.importorskip("flatbuffers", reason="JAX writes exported functions only with flatbuffers: the extra `export`")

SIZE = 32
# Of one rounding apart: the same operations, but compiled as one program in another process.
CLOSE = 2e-5
ONE = pytest.mark.parametrize("exported", ["perturbed_masks"], indirect=True)
ALONE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocked())
sys.path.insert(0, sys.argv[1])
import numpy as np
from run_exported import load
source, driving = np.load(sys.argv[2] + "/source.npy"), np.load(sys.argv[2] + "/driving.npy")
animation = load(sys.argv[1])
shown = list(animation.outputs(source, driving, int(sys.argv[3])))
np.savez(sys.argv[2] + "/shown.npz", **{{name: np.stack([one[name] for one in shown]) for name in shown[0]}})
print(len({blocked!r} & {{name.split(".")[0] for name in sys.modules}}))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The two systems by name, and a folder with a source and five driving frames."""
    folder = tmp_path_factory.mktemp("runs")
    draw = np.random.default_rng(0)
    np.save(folder / "source.npy", draw.integers(0, 256, (SIZE, SIZE, 3), np.uint8))
    np.save(folder / "driving.npy", draw.integers(0, 256, (5, SIZE, SIZE, 3), np.uint8))
    return {run.system.name: run for run in map(load_run, two_systems(folder))}, folder


@pytest.fixture(scope="module", params=["perturbed_masks", "fomm"])
def exported(request, runs, tmp_path_factory):
    """(run, options, all its pictures exported for three platforms, folder of the frames)."""
    run = runs[0][request.param]
    options = run.system.animation_options({})
    folder = tmp_path_factory.mktemp("export") / "there"
    export(run, folder, options, pictures=True)
    return run, options, folder, runs[1]


def own(run, options, folder, names=()):
    """The project's own animation of the frames: pictures by name."""
    source, driving = np.load(folder / "source.npy"), np.load(folder / "driving.npy")
    shown = list(animate(run.system, run.variables, source, driving, options, batch=4, names=names))
    return {name: np.stack([one[name] for one in shown]) for name in shown[0]}


def alone(exported_folder, folder, batch, *blocked):
    """All pictures of the exported animation, run by a process that cannot import what is blocked."""
    blocked = {"maskanim_jax", "configs", "flax", "optax", "orbax", "ml_collections", *blocked}
    done = subprocess.run(
        [sys.executable, "-c", ALONE.format(blocked=blocked), str(exported_folder), str(folder), str(batch)],
        capture_output=True, text=True, cwd=exported_folder, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["0"]
    with np.load(folder / "shown.npz") as shown:
        return {name: shown[name] for name in shown.files}


@pytest.mark.subprocess
def test_jax_alone_gives_the_same_pictures_in_another_batch(exported):
    run, options, there, folder = exported
    found, wanted = alone(there, folder, 2), own(run, options, folder)
    assert set(found) == set(wanted) == set(run.system.output_names)
    for name, values in wanted.items():
        assert values.std() > 0 or name in ("occlusion", "motion"), name
        np.testing.assert_allclose(found[name], values, atol=CLOSE, err_msg=name)


@ONE
def test_each_platform_has_its_own_operations_and_they_agree(exported):
    """The programs for other platforms run on this CPU too, where nobody has told JAX that they should not."""
    run, _, there, folder = exported
    whole = jax.export.deserialize(bytearray((there / "animate.jax_export").read_bytes()))
    assert whole.platforms == ("cpu", "cuda", "tpu")
    # Upsampling: a CPU's by parity, the others' with dilated input. All of a program for one platform is of one kind.
    dilated = "lhs_dilate = [2, 2]"
    assert dilated in whole.mlir_module()
    made = functions_of(run.system, run.variables, run.system.animation_options({}), run.system.output_names)
    frames = np.load(folder / "driving.npy").astype(np.float32) / 255
    source_state = jax.jit(made.begin)(made.weights, frames[:1], frames[1:2])
    results = {}
    for platform in ("cpu", "tpu"):
        anywhere = [jax.export.DisabledSafetyCheck.platform()]
        with disable_native():
            one = jax.export.export(jax.jit(made.animate), platforms=[platform], disabled_checks=anywhere)(
                made.weights, made.source_state, frames_of(SIZE, 5)
            )
        assert (dilated in one.mlir_module()) == (platform == "tpu")
        results[platform] = one.call(made.weights, source_state, frames)[run.system.result]
    np.testing.assert_allclose(results["cpu"], results["tpu"], atol=CLOSE)
    chosen = whole.call(made.weights, source_state, frames)[run.system.result]
    np.testing.assert_allclose(chosen, results["cpu"], atol=CLOSE)


def test_the_folder_says_what_it_is_and_holds_no_more_than_is_needed(exported):
    run, _, there, _ = exported
    info = json.loads((there / "export.json").read_text())
    assert (info["system"], info["step"], info["frame_size"], info["batch"]) == (run.system.name, 0, SIZE, None)
    low, high = info["calling_conventions_of_this_jax"]
    assert low <= info["calling_convention"] <= high
    text = (there / "README.md").read_text()
    assert jax.__version__ in text
    assert "{" not in text.replace('f"{n}.jax_export"', "")
    with np.load(there / "weights.npz") as weights:
        assert not [name for name in weights.files if "discriminator" in name or ".norm.mean" in name]


@pytest.mark.subprocess
@ONE
def test_the_readmes_lines_run(exported):
    run, options, there, folder = exported
    code = (there / "README.md").read_text().split("```python\n")[2].split("```")[0]
    lines = f"source, driving = np.load(r'{folder}/source.npy'), np.load(r'{folder}/driving.npy')\n"
    done = subprocess.run(
        [sys.executable, "-c", f"import numpy as np\n{lines}{code}\nnp.save(r'{folder}/readme.npy', frames)"],
        capture_output=True, text=True, cwd=there,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    wanted = own(run, options, folder, (run.system.result,))[run.system.result]
    np.testing.assert_allclose(np.load(folder / "readme.npy"), wanted, atol=CLOSE)


@pytest.mark.subprocess
@ONE
def test_a_damaged_file_is_named(exported, tmp_path):
    _, _, there, folder = exported
    for path in there.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with (tmp_path / "weights.npz").open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"0")
    done = subprocess.run(
        [sys.executable, "run_exported.py", folder / "source.npy", folder / "driving.npy", tmp_path / "out.npy"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "weights.npz is damaged" in done.stderr


@pytest.mark.subprocess
def test_the_command_writes_what_its_runner_runs(runs, tmp_path, capsys):
    folder = runs[1]
    checkpoint = f"--checkpoint={folder / 'masks'}"
    assert main([checkpoint, f"--output={tmp_path / 'out'}", "--threshold=100", "--platforms=cpu", "--batch=3"]) == 0
    assert "3 frames per call" in capsys.readouterr().out
    done = subprocess.run(
        [sys.executable, tmp_path / "out" / "run_exported.py", folder / "source.npy", folder / "driving.npy",
         tmp_path / "frames.npy"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    run = runs[0]["perturbed_masks"]
    wanted = own(run, run.system.animation_options({"threshold": "100"}), folder)["fine"]
    assert np.abs(np.load(tmp_path / "frames.npy").astype(int) - to_uint8(wanted)).max() <= 1
    with pytest.raises(UserError, match="already exists"):
        main([checkpoint, f"--output={tmp_path / 'out'}"])


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--platforms=cpu,gpu"], "unknown platform 'gpu'"),
        (["--platforms=cpu,cpu"], "each platform once"),
        (["--batch=0"], "must be at least 1"),
        (["--format=onnx", "--platforms=cpu"], "omit it"),
        (["--motion=absolute"], "not an option of Perturbed Masks"),
    ],
)
def test_what_cannot_be_is_a_sentence_and_writes_nothing(runs, tmp_path, flags, sentence):
    with pytest.raises(UserError, match=sentence):
        main([f"--checkpoint={runs[1] / 'masks'}", f"--output={tmp_path / 'out'}", *flags])
    assert not list(tmp_path.iterdir())


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("perturbed_masks", {}),
        ("fomm", {"motion": "relative"}),
        ("fomm", {"motion": "relative", "adapt_scale": "true"}),
        ("fomm", {"motion": "absolute"}),
    ],
)
def test_onnx_gives_the_same_frames(runs, tmp_path, name, given):
    pytest.importorskip("jax2onnx", reason="the extra `onnx` is not installed")
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    run, folder = runs[0][name], runs[1]
    options = run.system.animation_options(given)
    there = Path(tmp_path / "out")
    export(run, there, options, format="onnx", batch=2)
    found = alone(there, folder, 2, "jax", "jaxlib", "jax2onnx")[run.system.result]
    np.testing.assert_allclose(found, own(run, options, folder)[run.system.result], atol=1e-4)


# -- verified before it is visible -------------------------------------------------------------------------------------------------------


def test_an_export_is_compared_with_the_projects_own_result(exported):
    _, _, there, _ = exported
    compared = json.loads((there / "export.json").read_text())["compared"]
    assert compared["frames"] == 3
    assert 0 <= compared["mean_difference"] <= compared["largest_difference"] < 1e-3


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (lambda source_state, driving: 1 / 0, "don't run .division by zero"),
        (lambda source_state, driving: {"fine": np.zeros((len(driving), SIZE, SIZE, 3), np.float32)}, "frames differ"),
        (
            lambda source_state, driving: {"fine": np.full((len(driving), SIZE, SIZE, 3), np.nan, np.float32)},
            "frames differ",
        ),
    ],
)
def test_an_export_that_does_not_do_the_same_is_not_written(runs, tmp_path, monkeypatch, broken, sentence):
    from maskanim_jax.exporting import run_exported

    monkeypatch.setattr(run_exported, "_jax", lambda folder: (lambda source, first: {}, broken))
    run = runs[0]["perturbed_masks"]
    with pytest.raises(UserError, match=sentence):
        export(run, tmp_path / "out", run.system.animation_options({}), platforms=("cpu",), batch=2)
    assert not list(tmp_path.iterdir())


def test_an_export_for_other_machines_says_that_it_was_not_run(runs, tmp_path):
    run = runs[0]["perturbed_masks"]
    info = export(run, tmp_path / "out", run.system.animation_options({}), platforms=("tpu",), batch=2)
    assert info["compared"] is None
