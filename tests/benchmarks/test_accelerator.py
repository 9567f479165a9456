"""Does the accelerator benchmark keep its results, stay within its time, and need only what such a machine has?"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import recorded  # noqa: E402
from benchmarks.accelerator import devices, parity, parts, speed, workload  # noqa: E402
from benchmarks.accelerator.__main__ import main, parser  # noqa: E402
from benchmarks.accelerator.report import Report  # noqa: E402
from benchmarks.accelerator.supervisor import Supervisor  # noqa: E402
from maskanim_jax.errors import UserError  # noqa: E402

pytestmark = pytest.mark.slow

SMALL = ["--small", "--frame_size=64", "--batches=2", "--animation_batches=1,3", "--precision=float32"]
LACKING = "grain clu av tensorflow_datasets array_record tqdm h5py jinja2 tensorboardX simplejpeg skimage torch imageio"
BLOCKED = f"""
import sys
class Finder:
    def find_spec(self, name, *_):
        if name.split(".")[0] in {LACKING.split()}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Finder())
"""
WORKER = """
import json, sys, time
part = sys.argv[-1].removeprefix("--part=")
print(json.dumps({"device": "a toy"} if part == "device" else {"system": part, "batch": 1}), flush=True)
if part == "slow":
    time.sleep(60)
if part == "broken":
    sys.exit(3)
"""
SUPERVISED = """
import sys, time
from pathlib import Path
from benchmarks.accelerator import supervisor
from benchmarks.accelerator.report import Report
report = Report(Path(sys.argv[1]), {})
try:
    supervisor.Supervisor(report, [sys.executable, "-c", sys.argv[2]], time.monotonic() + 60).run(["device", "slow"])
except supervisor.Stopped as stopped:
    sys.exit(143)
"""


@pytest.fixture
def handlers():
    """The signals' handlers are put back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_part_that_takes_too_long_or_breaks_costs_no_other(tmp_path, handlers, monkeypatch):
    monkeypatch.setattr("benchmarks.accelerator.supervisor.SHARE", 0.2)
    report = Report(tmp_path / "a.json", {})
    supervisor = Supervisor(report, [sys.executable, "-c", WORKER], time.monotonic() + 30)
    supervisor.run(["device", "slow", "broken", "training"])
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["about"] == {"device": "a toy"}
    # Their rows so far are kept.
    assert {part: rows[0]["system"] for part, rows in found["rows"].items()} == {
        part: part for part in ("slow", "broken", "training")
    }
    how = {part: each["how"] for part, each in found["parts"].items()}
    assert how["training"] == "finished"
    assert "its time was over" in how["slow"]
    assert "status 3" in how["broken"]
    supervisor.deadline = time.monotonic()
    supervisor.run(["late"])
    assert report.found["parts"]["late"]["how"].startswith("not started")
    assert "| training |" in (tmp_path / "a.md").read_text()


@pytest.mark.subprocess
def test_sigterm_leaves_what_was_found(tmp_path):
    path = tmp_path / "a.json"
    command = [sys.executable, "-c", SUPERVISED, str(path), WORKER]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True)
    try:
        while not (path.exists() and "slow" in json.loads(path.read_text())["rows"]):
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        assert process.wait(20) == 143
    finally:
        process.kill()
    found = json.loads(path.read_text())
    assert found["rows"] == {"slow": [{"system": "slow", "batch": 1}]}
    assert found["parts"]["slow"]["how"] == "stopped by SIGTERM"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.subprocess
def test_it_runs_where_only_jax_and_its_friends_are_installed(tmp_path, monkeypatch, handlers, capfd):
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    monkeypatch.setattr(parts, "names", lambda args: ["device", "parity-pm", "animation-pm-float32"])
    path = tmp_path / "a.json"
    assert main([*SMALL, f"--output={path}", f"--parity={tmp_path}", "--minutes=9"]) == 0, capfd.readouterr().err
    found = json.loads(path.read_text())
    assert found["about"]["platform"] == "cpu"
    assert found["parts"]["parity-pm"]["how"].startswith(f"skipped: {tmp_path} lacks the recorded numbers")
    one, three = found["rows"]["animation-pm-float32"]
    assert (one["batch"], three["batch"]) == (1, 3)
    assert all(row[name] > 0 for row in (one, three) for name in ("frames_per_s", "frames_per_s_fetched"))
    assert "## animation" in capfd.readouterr().out
    others = "import benchmarks.accelerator.speed, benchmarks.accelerator.parity as parity; parity.Fomm, "
    others += "import_module('maskanim_jax.conversion.fomm'), import_module('maskanim_jax.conversion.perturbed_masks')"
    subprocess.run([sys.executable, "-c", f"from importlib import import_module; {others}"], check=True)


@pytest.mark.parametrize("system", workload.SYSTEMS)
def test_steps_are_timed_and_lower_the_loss(system):
    (row,) = speed.training(lambda: workload.config_of(system, 32, "float32", small=True), [8], 0.01)
    assert row["batch"] == 8
    assert row["frames_per_s"] == pytest.approx(8 * row["steps_per_s"])
    assert row["peak_memory_mib"] > 0
    (learned,) = speed.learning(workload.config_of(system, 32, "float32", small=True), 8, 60)
    assert learned["steps"] == 60
    assert learned["passed"], learned


def test_a_batch_that_does_not_fit_ends_its_part_with_a_note(monkeypatch):
    class Full:
        def __init__(self, config, batch):
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 bytes")

    monkeypatch.setattr(speed, "Training", Full)
    rows = list(speed.training(lambda: workload.config_of("fomm", 64, "float32", small=True), [64, 4], 0.1))
    assert [(row["batch"], row["note"]) for row in rows] == [(4, "does not fit into the device's memory")]


def test_the_order_begins_with_what_is_learned_only_here():
    args = parser().parse_args([])
    args.precision, args.only = ["bfloat16", "float32"], None
    names = parts.names(args)
    assert names[:3] == ["device", "parity-pm", "parity-fomm"]
    assert {"training-fomm-bfloat16", "animation-pm-float32", "learning-pm", "pytorch-fomm-float32"} <= set(names)
    assert names.index("learning-fomm") < names.index("training-pm-float32")


@pytest.mark.parametrize(
    ("kind", "precision", "peak"),
    [
        ("NVIDIA H200", "bfloat16", 989),
        ("NVIDIA H100 80GB HBM3", "float32", 495),
        ("NVIDIA A100-SXM4-40GB", "bfloat16", 312),
        ("NVIDIA L4", "bfloat16", 121),
        ("NVIDIA L40S", "bfloat16", 362),
        ("Tesla T4", "float32", 8.1),
        ("TPU v5 lite", "bfloat16", 197),
        ("TPU v4", "float32", 275),
        ("cpu", "bfloat16", None),
        ("NVIDIA L40", "bfloat16", None),
    ],
)
def test_a_device_is_found_in_the_table_by_whole_words(kind, precision, peak):
    assert devices.peak_tflops(kind, precision) == peak


def test_differences_are_judged_by_their_precision():
    expected = {"pictures": {"fine": np.zeros((1, 2))}, "losses": {"fine": 2.0}, "norms": {"fine": 4.0}}
    found = {"pictures": {"fine": np.array([[0.0, 0.004]])}, "losses": {"fine": 2.001}, "norms": {"fine": 4.0}}
    assert not parity.compared("float32, highest", found, expected)["passed"]
    row = parity.compared("bfloat16", found, expected)
    assert row["passed"]
    assert (row["largest"]["fine"], row["mean"]["fine"]) == pytest.approx((0.004, 0.002))
    assert row["losses"]["fine"] == pytest.approx(5e-4)
    for kind in ("losses", "norms"):
        assert not parity.compared("bfloat16", found | {kind: {"fine": float("nan")}}, expected)["passed"]


@pytest.mark.skipif(not recorded.FOLDER.is_dir(), reason="the recorded numbers (../shared/parity) are not here")
@pytest.mark.parametrize("name", parity.CHECKS)
def test_the_checks_read_the_recorded_numbers(name, monkeypatch):
    monkeypatch.setattr(recorded, "fill", lambda key, shape: np.zeros(shape, np.float32))  # drawing them takes long
    check = parity.CHECKS[name](recorded.FOLDER)
    assert check.variables.params.keys() >= check.expected["norms"].keys()
    assert all(value > 0 for kind in ("losses", "norms") for value in check.expected[kind].values())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--precision=float16"], "give bfloat16, float32 or both"),
        (["--only=nothing"], "give some of device,"),
        (["--frame_size=100"], "multiple of 64"),
        (["--minutes=0"], "more than 0"),
        (["--steps=1"], "at least 2"),
        (["--output=nowhere/a.json"], "is not a folder"),
    ],
)
def test_flags_that_cannot_be(given, sentence):
    with pytest.raises(UserError, match=sentence):
        main(given)
