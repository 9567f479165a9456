"""Are the documents correct: do links resolve, do commands and flags exist, and do the examples run?

A fence of bash or Python is either listed in RUN below, and run, or has a comment above it: `<!-- needs: a trained run -->`. The flags
of all commands, run or not, are given to the command's own parser.
"""

import argparse
import glob
import importlib
import importlib.util
import json
import re
import shutil
import sys
import tomllib
import urllib.parse

import numpy as np
import pytest
from clips import save
from doc_pages import PAGES, ROOT, anchors, commands, fences, links
from PIL import Image

from maskanim_jax.checkpoints import bundled

FENCES = [fence for page in PAGES for fence in fences(page) if fence.language in ("bash", "python", "sh", "")]
COMMANDS = [(fence, words) for fence in FENCES if fence.language == "bash" for words in commands(fence)]
OURS = ("maskanim_jax", "input_pipeline", "scripts")
STAND_INS = {"STEP": "4000", "DIR": "runs/mine"}
"""Replacements for words in capitals, where a parser needs a number or a run."""

RUN = {
    "maskanim_jax.animate": {"--checkpoint=demo": "--checkpoint=puppets"},
    "maskanim_jax.crop": {},
    "input_pipeline.prepare": {"--size=256": "--size=32", "--size=64": "--size=32"},
    "input_pipeline.inspect": {},
    "maskanim_jax.user_study": {},
}
"""Commands that are run if they need nothing, and the settings that make them small."""
ONE_PROCESS = {"input_pipeline.prepare": ["--workers=1"]}
RUN_PYTHON = {"docs/data.md": 1}  # fences of a page that are run below
RUN_ELSEWHERE = {"README.md": ("commands/test_api.py", "test_the_readmes_lines_run")}


class Parsed(Exception):
    """Raised in place of the work, after a parser has accepted all flags."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in links(page):
        place = urllib.parse.urlsplit(link)
        if place.scheme or place.netloc:
            assert place.scheme == "https", f"{page.name}: {link}"
            assert "." in place.netloc, f"{page.name}: {link}"
            continue
        target = page.parent / urllib.parse.unquote(place.path) if place.path else page
        assert target.exists(), f"{page.name}: {link} is not there"
        assert target.resolve().is_relative_to(ROOT), f"{page.name}: {link} leads out of the repository"
        if place.fragment:
            assert place.fragment in anchors(target), f"{page.name}: {link}: no such heading"


def test_every_page_is_in_the_index_and_the_index_in_the_readme():
    index = ROOT / "docs" / "README.md"
    listed = {link.partition("#")[0] for link in links(index)}
    missing = {page.name for page in PAGES if page.parent == index.parent} - listed - {"README.md"}
    assert not missing, f"docs/README.md does not list {missing}"
    assert "docs/README.md" in links(ROOT / "README.md")


def test_files_that_pages_name_are_there():
    named = re.compile(
        r"`((?:configs|docs|tests|benchmarks|notebooks|scripts|maskanim_jax|input_pipeline)/[\w./-]+\.\w+)`"
    )
    for page in PAGES:
        for path in named.findall(page.read_text(encoding="utf-8")):
            if "TOPIC" not in path and "SYSTEM" not in path and "NAME" not in path:
                assert (ROOT / path).exists(), f"{page.name}: {path} is not there"


def test_modules_that_pages_name_can_be_run():
    for page in PAGES:
        for module in re.findall(
            r"python -m ((?:maskanim_jax|input_pipeline|scripts)[\w.]*)", page.read_text(encoding="utf-8")
        ):
            path = ROOT.joinpath(*module.split("."))
            file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__main__.py"
            assert file.exists(), f"{page.name}: {module}"
            assert '__name__ == "__main__"' in file.read_text(), f"{page.name}: {module}"


@pytest.mark.parametrize("fence", [f for f in FENCES if f.language in ("bash", "python")], ids=str)
def test_a_fence_is_run_or_says_what_it_needs(fence):
    if fence.language == "bash":
        ran = all(module_of(words) in RUN for words in commands(fence))
    else:
        ran = fence.page in RUN_PYTHON
        if fence.page in RUN_ELSEWHERE:
            file, test = RUN_ELSEWHERE[fence.page]
            ran = f"def {test}(" in (ROOT / "tests" / file).read_text()
    assert ran or fence.needs, (
        f"{fence}: put a comment such as <!-- needs: a trained run --> above it, or run it in {__file__}"
    )


def module_of(words):
    """The module of `python -m MODULE`, None of another command."""
    return words[2] if words[:2] == ["python", "-m"] else None


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the pages' examples take, tiny."""
    folder = tmp_path_factory.mktemp("docs")
    example = bundled.FOLDER / "puppets"
    for run in ("mine", "any", "on", "released"):
        (folder / "runs" / run).mkdir(parents=True)
        shutil.copy(example / "config.json", folder / "runs" / run)
    for name in (
        "video.mp4",
        "walk.mp4",
        *(f"ROOT/{split}/{split}-{k}.mp4" for split in ("train", "test") for k in (1, 2)),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(example / "driving.mp4", folder / name)
    Image.open(example / "source.png").resize((480, 360)).save(folder / "photo.png")
    for name in ("driving", "ours", "fomm"):
        (folder / name).mkdir()
        for k in (1, 2):
            save(folder / name / f"{k}.mp4", np.full((2, 16, 16, 3), 60 * k, np.uint8))
    (folder / "sources").mkdir()
    for k in (1, 2):
        Image.new("RGB", (16, 16), (90 * k, 0, 0)).save(folder / "sources" / f"{k}.png")
    trials = next(f.text for f in fences(ROOT / "docs" / "user-study.md") if f.language == "csv")
    (folder / "trials.csv").write_text(trials)
    (folder / "configs").symlink_to(ROOT / "configs")
    return folder


@pytest.mark.parametrize(("fence", "words"), COMMANDS, ids=[f"{f}-{' '.join(w)[:60]}" for f, w in COMMANDS])
def test_the_commands_own_parser_takes_it(fence, words, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    words = [re.sub(rf"\b({'|'.join(STAND_INS)})$", lambda m: STAND_INS[m[1]], word) for word in words]
    module = module_of(words)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"{fence}: make {words[1]}"
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for name in re.findall(r"maskanim_jax\[(\w+)\]", " ".join(words)):
            assert name in extras, f"{fence}: no extra {name}"
    elif module and module.split(".")[0] in OURS:
        parse(module, words[3:], monkeypatch, capsys, str(fence))
    elif module == "pytest" or (words[0] == "python" and words[1].endswith(".py")):
        assert (ROOT / words[-1 if module else 1]).exists(), f"{fence}: {words}"
    else:
        assert words[0] in {".", "gcloud", "source", "ruff", "mypy", "tensorboard"}, f"{fence}: what is {words[0]}?"


def parse(module, arguments, monkeypatch, capsys, where):
    """Gives the arguments to the parser that the module's `main` uses, and does no work."""
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    if module == "maskanim_jax.main":
        from absl import flags

        from maskanim_jax import main

        parsed = flags.FLAGS.is_parsed()
        try:
            main.parse(sys.argv)
        finally:
            for name in [name for name in flags.FLAGS if name.startswith("config.")]:
                delattr(flags.FLAGS, name)  # the next command's config has fields of its own
            if not parsed:
                flags.FLAGS.unparse_flags()
        return
    whole, some = argparse.ArgumentParser.parse_args, argparse.ArgumentParser.parse_known_args
    inside = []

    def parse_args(self, *given):
        inside.append(True)
        whole(self, *given)
        raise Parsed

    def parse_known_args(self, *given):
        answer = some(self, *given)
        if inside:
            return answer
        assert all(rest.startswith("--config.") for rest in answer[1]), answer[1]
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_known_args)
    name = module if importlib.util.find_spec(module).submodule_search_locations is None else f"{module}.__main__"
    try:
        with pytest.raises(Parsed):
            importlib.import_module(name).main()
    except SystemExit:
        pytest.fail(f"{where}: {capsys.readouterr().err}")


@pytest.mark.slow
def test_what_needs_nothing_runs(place, monkeypatch):
    """In the order of the pages, one after the other in one folder, as a reader would."""
    monkeypatch.chdir(place)
    ran = set()
    for fence in FENCES:
        if fence.needs or fence.language != "bash":
            continue
        for words in commands(fence):
            module = module_of(words)
            if tuple(words) in ran:
                continue
            ran.add(tuple(words))
            assert module in RUN, f"{fence}: {words} is not run by this test; say above the fence what it needs"
            arguments = [part for word in words[3:] for part in (sorted(glob.glob(word)) if "*" in word else [word])]
            arguments = [RUN[module].get(word, word) for word in arguments] + ONE_PROCESS.get(module, [])
            for output in (word.partition("=")[2] for word in arguments if word.startswith("--output=")):
                if (place / output).is_dir():
                    shutil.rmtree(place / output)  # another page's example with the same name
            monkeypatch.setattr(sys, "argv", [module, *arguments])
            try:
                status = importlib.import_module(module).main()
            except SystemExit as error:
                status = error.code
            assert not status, f"{fence}: {words} ended with {status}"
    assert {module_of(list(words)) for words in ran} == set(RUN)
    assert {"out.mp4", "cropped.mp4", "boxes.csv", "SHARDS", "study.html", "study-key.json"} <= {
        p.name for p in place.iterdir()
    }
    for page, count in RUN_PYTHON.items():
        blocks = [f.text for f in fences(ROOT / page) if f.language == "python"]
        assert len(blocks) == count
        for block in blocks:
            names = {}
            exec(block, names)
            assert names["source"][0]["frame"].shape == (32, 32, 3)
    assert json.loads((place / "data" / "mine" / "report.json").read_text())


def test_pictures_of_the_docs_are_shown_somewhere():
    shown = {
        (page.parent / link).resolve() for page in PAGES for link in links(page) if link.endswith((".png", ".svg"))
    }
    drawn = {path.resolve() for path in (ROOT / "docs").rglob("*.png") if path.parent.name != "study"}
    assert drawn == {path for path in shown if path.suffix == ".png" and path.parent.name != "study"}
    for path in shown:
        assert path.stat().st_size < 1 << 20, path
