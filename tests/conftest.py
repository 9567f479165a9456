"""What do all tests share? One compilation cache, also for subprocesses, and the tiny data set, drawn once."""

import gc
import os
import shutil
import sys
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pytest

SHARED_FOLDERS = [str(Path(__file__).parent / folder) for folder in ("helpers", "tools", "../benchmarks")]
sys.path[:0] = SHARED_FOLDERS
# Subprocesses import the helpers, too.
os.environ["PYTHONPATH"] = os.pathsep.join([*SHARED_FOLDERS, *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Set before JAX is imported, and inherited by the workers of a parallel run.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="maskanim-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
# Most time is spent compiling programs that run once. Without LLVM's optimisations and XLA's emitter of fused loops a
# training step compiles in a third of the time; XLA's own passes stay.
# jaxlib 0.11 has no other emitter, and ends the process that names the flag.
MINOR = tuple(map(int, version("jaxlib").split(".")[:2]))
EMITTER = "" if MINOR >= (0, 11) else " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", f"--xla_backend_optimization_level=0{EMITTER}")
import maskanim_jax  # noqa: E402, F401  # adds a flag to XLA_FLAGS; imports no JAX


def pytest_collection_modifyitems(items):
    """Files with long tests come first, so that no worker starts one when the others are done."""
    weights = Counter()
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        weights[item.path] += 10 if "slow" in marks else 3 if marks & {"subprocess", "browser"} else 0.1
    items.sort(key=lambda item: -weights[item.path])


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory):
    """Shards of the tiny puppets."""
    from tiny import tiny_config

    from input_pipeline.from_config import ensure_shards

    return ensure_shards(tiny_config(tmp_path_factory.mktemp("puppets") / "shards"))


@pytest.fixture(autouse=True, scope="module")
def compiled_programs_go():
    """Drops a test file's compiled programs after it: otherwise a worker grew to 7 GB."""
    yield
    if "jax" in sys.modules:
        import jax

        from maskanim_jax.utils.memory import trim_host_memory

        jax.clear_caches()
        gc.collect()
        trim_host_memory()


@pytest.fixture(scope="module")
def shared_programs():
    """For files whose runs have few different configs; see the helper."""
    from shared_programs import shared

    with shared():
        yield


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium with a camera that shows a test picture; skips where there is none."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no chromium on this machine")
    driver = pytest.importorskip("playwright.sync_api", reason="Playwright, which drives the browser, is not installed")
    with driver.sync_playwright() as started:
        flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        opened = started.chromium.launch(executable_path=chromium, args=flags)
        yield opened
        opened.close()
