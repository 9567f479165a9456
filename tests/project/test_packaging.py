"""Does the wheel build, install into an empty environment and run there, and do the metadata files agree with the code?"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import maskanim_jax
from maskanim_jax.__main__ import commands

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("maskanim_jax", "configs", "input_pipeline")
OFFLINE = ("No matching distribution", "Failed to establish", "Temporary failure", "Could not fetch", "Read timed out")


def python(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300, **options)


def can_build_here():
    """Whether this environment's setuptools is the one that pyproject.toml asks for, so that pip need not fetch it."""
    try:
        return int(importlib.metadata.version("setuptools").split(".")[0]) >= 77
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    tree.mkdir()
    for name in (*PACKAGES, "tests", "benchmarks"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    offline = ["--no-build-isolation"] if can_build_here() else []
    done = python(
        "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--retries=1", "--no-deps", *offline,
        f"--wheel-dir={folder}", str(tree),
    )  # fmt: skip
    if done.returncode and any(sign in done.stderr for sign in (*OFFLINE, "No module named pip")):
        pytest.skip("setuptools 77 or newer is neither installed nor can pip fetch it")
    assert done.returncode == 0, done.stderr[-3000:]
    return next(folder.glob("*.whl"))


@pytest.mark.subprocess
def test_the_wheel_holds_all_that_runs_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    for package in PACKAGES:
        there = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*") if path.is_file()}
        there = {name for name in there if "__pycache__" not in name}
        assert there <= names, sorted(there - names)
    assert {name.split("/")[0] for name in names} == {*PACKAGES, f"maskanim_jax-{PROJECT['version']}.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.subprocess
def test_the_wheel_runs_where_nothing_else_is(wheel, tmp_path):
    """Only the standard library and the wheel: `-S` leaves this environment's packages out."""
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(tmp_path / "place")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "place")}
    done = python("-S", "-m", "maskanim_jax", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"maskanim_jax {PROJECT['version']}"
    assert "python -m maskanim_jax.animate" in done.stdout


@pytest.mark.subprocess
def test_the_version_is_one():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE)[1] == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text().replace("[", "").replace("]", "")
    done = python("-m", "maskanim_jax", "--version")
    assert done.stdout.split() == ["maskanim_jax", maskanim_jax.__version__]


def test_every_command_is_listed_with_a_sentence():
    listed = dict(commands())
    for name in ("animate", "convert", "main", "report", "weights"):
        assert f"maskanim_jax.{name}" in listed
    assert {"input_pipeline.prepare", "input_pipeline.inspect", "input_pipeline.puppets"} < listed.keys()
    assert all(10 < len(sentence) < 120 for sentence in listed.values()), listed


@pytest.mark.subprocess
def test_a_command_given_as_an_argument_is_put_right():
    done = python("-m", "maskanim_jax", "animate")
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert "python -m maskanim_jax.animate" in done.stderr


def test_the_citation_names_paper_and_software():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "type"} <= citation.keys()
    assert citation["license"] == PROJECT["license"]
    assert [author["family-names"] for author in citation["preferred-citation"]["authors"]] == ["Shalev", "Wolf"]


def test_what_contributing_points_to_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`((?:tests|benchmarks|configs|docs)/[\w./-]*\.(?:py|md))`|\]\(([\w./-]+)\)", text)
    named = [one or other for one, other in named if "TOPIC" not in one]
    assert len(named) >= 4
    for path in named:
        assert (ROOT / path).exists(), path
