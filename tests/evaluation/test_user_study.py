"""Is the page blind and usable in a browser, and does the tally count what people chose?"""

import base64
import csv
import json
import re
import shutil
import subprocess

import pytest
from clips import clip, save
from PIL import Image

from maskanim_jax.errors import UserError
from maskanim_jax.evaluation.user_study import read_trials, tally, wilson
from maskanim_jax.user_study import main

SYSTEMS = ("PerturbedMasksOfOurs", "FirstOrderMotion", "MonkeyNet")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# What a participant does: names themself, looks whether Next waits for both answers, answers all.
SCRIPT = """<script>
window.addEventListener("load", function () {
  const at = (id) => document.getElementById(id), seen = [];
  at("participant").value = "PARTICIPANT";
  at("participant").dispatchEvent(new Event("input"));
  at("start").click();
  for (let guard = 0; guard < 50 && at("done").hidden; guard++) {
    const pick = (name, i) => document.querySelectorAll("input[name=" + name + "]")[i].click();
    const waits = [at("next").disabled];
    pick("realistic", 0);
    waits.push(at("next").disabled);
    pick("faithful", 1);
    waits.push(at("next").disabled);
    seen.push({ waits: waits, first: document.querySelector("#options img, #options video").src,
                players: document.querySelectorAll("#question img, #question video").length });
    at("next").click();
  }
  const log = document.createElement("pre");
  log.id = "seen"; log.textContent = JSON.stringify(seen);
  document.body.append(log);
});
</script></body>"""


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    """A table of two data sets, two questions of the first; every result is a picture or gif of its own."""
    root = tmp_path_factory.mktemp("study")
    Image.fromarray(clip(1, 32, 32)[0]).save(root / "source.png")
    save(root / "driving.mp4", clip(5, 32, 32))
    rows = []
    for number, dataset in enumerate(("Tai-Chi-HD", "Tai-Chi-HD", "BAIR <b>")):
        row = {"dataset": dataset, "source": "source.png", "driving": "driving.mp4"}
        for i, system in enumerate(SYSTEMS):
            row[system] = f"{system}-{number}.png"
            Image.fromarray(clip(1, 16, 16, seed=10 * number + i)[0]).save(root / row[system])
        rows.append(row)
    with open(root / "trials.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return root / "trials.csv"


def make(trials, folder, *more):
    main([f"--trials={trials}", f"--output={folder / 'page.html'}", *more])
    return (folder / "page.html").read_text(encoding="utf-8"), json.loads((folder / "page-key.json").read_text())


def answer(folder, key, person, realistic, faithful, **other):
    """Answers to all questions, always the same two systems."""
    given = []
    for token, trial in key["trials"].items():
        by_system = {system: option for option, system in trial["options"].items()}
        given.append({"trial": token, "realistic": by_system[realistic], "faithful": by_system[faithful]})
    content = {"format": "maskanim_jax user study answers", "study": key["study"], "participant": person}
    path = folder / f"{person}.json"
    path.write_text(json.dumps(content | {"answers": given} | other))
    return path


def test_the_page_tells_no_system_no_file_and_no_order(trials, tmp_path):
    page, key = make(trials, tmp_path)
    for word in (*SYSTEMS, "Tai-Chi", "BAIR", "trials.csv", "source.png", "driving.mp4", str(trials.parent)):
        assert word.lower() not in page.lower()
    options = [[key["trials"][t["id"]]["options"][o["id"]] for o in t["options"]] for t in study_of(page)["trials"]]
    assert all(sorted(systems) == sorted(SYSTEMS) for systems in options)
    assert len({tuple(systems) for systems in options}) > 1


def study_of(page):
    return json.loads(re.search(r'id="study">(.*?)</script>', page, re.S)[1])


def test_the_key_says_which_video_is_behind_a_choice(trials, tmp_path):
    page, key = make(trials, tmp_path)
    shown = {o["id"]: o["media"] for t in study_of(page)["trials"] for o in t["options"]}
    number = {"BAIR <b>": {2}, "Tai-Chi-HD": {0, 1}}
    for trial in key["trials"].values():
        for option, system in trial["options"].items():
            content = base64.b64decode(shown[option].split(",")[1])
            files = [(trials.parent / f"{system}-{n}.png").read_bytes() for n in number[trial["dataset"]]]
            assert content in files


def test_the_same_seed_makes_the_same_page_and_another_does_not(trials, tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
    first, _ = make(trials, tmp_path / "a", "--seed=1")
    assert make(trials, tmp_path / "b", "--seed=1")[0] == first
    assert make(trials, tmp_path / "c", "--seed=2")[0] != first


def test_the_key_of_another_page_is_not_overwritten(trials, tmp_path):
    page, key = make(trials, tmp_path)
    assert make(trials, tmp_path) == (page, key)
    with pytest.raises(UserError, match=r"page-key.json is the key of another page"):
        make(trials, tmp_path, "--seed=1")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page


@pytest.mark.subprocess
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize(("per_dataset", "expected"), [(None, 3), (1, 2)])
def test_a_participant_answers_in_a_browser_and_is_counted(trials, tmp_path, per_dataset, expected):
    page, _ = make(trials, tmp_path, *([f"--per_dataset={per_dataset}"] if per_dataset else []))
    scripted = tmp_path / "scripted.html"
    scripted.write_text(page.replace("</body>", SCRIPT.replace("PARTICIPANT", "Zoe 7")), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    ended = subprocess.run(
        [*command, "--virtual-time-budget=5000", "--dump-dom", scripted.as_uri()],
        capture_output=True,
        text=True,
        timeout=240,
    )
    dom = ended.stdout
    text = re.search(r'<textarea id="answers"[^>]*>(.*?)</textarea>', dom, re.S)[1]
    (tmp_path / "zoe.json").write_text(text)
    seen = json.loads(re.search(r'<pre id="seen">(.*?)</pre>', dom, re.S)[1])
    given = json.loads(text)
    assert given["participant"] == "Zoe 7"
    assert 'download="answers-Zoe-7.json"' in dom
    assert len(given["answers"]) == len(seen) == expected
    media = {o["id"]: o["media"] for t in study_of(page)["trials"] for o in t["options"]}
    for one, looked in zip(given["answers"], seen, strict=True):
        assert looked["waits"] == [True, True, False]
        assert looked["players"] == 2 + len(SYSTEMS)
        assert looked["first"] == media[one["shown"][0]]  # what was seen first is what was saved as first
        assert (one["realistic"], one["faithful"]) == (one["shown"][0], one["shown"][1])
    cells = tally(tmp_path / "page-key.json", [tmp_path / "zoe.json"])
    assert {c.asked for c in cells if c.dataset == "all"} == {expected}


def test_known_answers_make_the_known_table(trials, tmp_path, capsys):
    _, key = make(trials, tmp_path)
    ours, fomm, _ = SYSTEMS
    people = [answer(tmp_path, key, f"p{i}", ours if i < 4 else fomm, ours) for i in range(5)]
    main(["--tally", *map(str, people), f"--key={tmp_path / 'page-key.json'}", f"--output={tmp_path / 't3.csv'}"])
    with open(tmp_path / "t3.csv", newline="", encoding="utf-8") as file:
        cells = {(c["question"], c["dataset"], c["system"]): c for c in csv.DictReader(file)}
    assert len(cells) == 2 * 3 * 3
    assert (cells["Quality", "Tai-Chi-HD", ours]["chosen"], cells["Quality", "Tai-Chi-HD", ours]["asked"]) == (
        "8",
        "10",
    )
    assert float(cells["Quality", "BAIR <b>", fomm]["share"]) == pytest.approx(0.2)
    assert float(cells["Motion", "all", ours]["share"]) == 1
    assert float(cells["Motion", "all", ours]["bootstrap_low"]) == 1  # nobody else was ever chosen
    quality = cells["Quality", "all", ours]
    # Each participant gave the same answer three times: the bootstrap knows, Wilson doesn't.
    assert float(quality["bootstrap_low"]) < float(quality["wilson_low"]) < 0.8 < float(quality["wilson_high"])
    assert len(json.loads((tmp_path / "t3.json").read_text())) == len(cells)
    assert "| Quality | Tai-Chi-HD | 10 | 80% [49%, 94%] | 20% [6%, 51%] | 0% [0%, 28%] |" in capsys.readouterr().out


def test_wilson_is_the_textbooks():
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_answers_that_cannot_be_counted_are_refused_by_name(trials, tmp_path):
    _, key = make(trials, tmp_path)
    ours = SYSTEMS[0]
    one = answer(tmp_path, key, "Ann", ours, ours)
    cases = {
        "same participant": [one, answer(tmp_path, key, "ann", ours, ours)],
        "another study": [answer(tmp_path, key, "Bob", ours, ours, study="0")],
        "does not fit": [answer(tmp_path, key, "Cid", ours, ours, answers=[{"trial": "0"}])],
        "as JSON": [trials],
        "not the answers file": [tmp_path / "page-key.json"],
    }
    for words, paths in cases.items():
        with pytest.raises(UserError, match=words) as caught:
            tally(tmp_path / "page-key.json", paths)
        assert paths[-1].name in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dataset,source,driving,A\n", "at least two systems"),
        ("dataset,source,driving,A,B\n", "no rows"),
        ("dataset,source,driving,A,B\nd,s.png,d.mp4,a.mp4,\n", "line 2"),
        ("dataset,source,driving,A,A\nd,s.png,d.mp4,a.mp4,b.mp4\n", "at least two"),
    ],
)
def test_tables_of_questions_that_cannot_be_meant_are_refused(tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        read_trials(tmp_path / "t.csv")


def test_a_missing_video_leaves_an_old_page_in_place(trials, tmp_path):
    (tmp_path / "page.html").write_text("old")
    copy = tmp_path / "trials.csv"
    copy.write_bytes(trials.read_bytes())
    with pytest.raises(UserError, match=r"cannot be read"):
        main([f"--trials={copy}", f"--output={tmp_path / 'page.html'}"])
    assert (tmp_path / "page.html").read_text() == "old"
