"""Which system do people prefer? A blind study page, and a tally of its answers like the paper's
table 3.

The page shows a source, a driving video and each system's result, in random order for each
participant. It is a single HTML file with all videos embedded (data URIs), so it can be mailed or
hosted anywhere, and no file name reveals a system. The key that maps choices to systems is a
separate file that you keep.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskanim_jax.errors import UserError, check_at_least
from maskanim_jax.utils import json_files
from maskanim_jax.utils.atomic_files import atomic_write
from maskanim_jax.utils.templates import rendered

QUESTIONS = {"Quality": "realistic", "Motion": "faithful"}
"""The two questions (rows of the paper's table) and their keys in the answers:
realism and faithfulness.
"""

_KINDS = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".webm": "video/webm",
    ".gif": "image/gif",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
}

_LARGEST = 300 << 20  # bytes of all files; browsers have trouble with larger pages

_FORMAT = "maskanim_jax user study"

_RESAMPLES = 2000

_Z = 1.959964  # 95%


class Trial(NamedTuple):
    """One question: its files, and each system's result by name."""

    dataset: str
    source: Path
    driving: Path
    results: dict[str, Path]


class Cell(NamedTuple):
    """How often a system was chosen, `chosen` of `asked`, with 95% intervals
    of the share, in [0, 1].

    The Wilson interval assumes independent answers; the bootstrap resamples participants with all
    their answers.
    """

    question: str
    dataset: str
    system: str
    chosen: int
    asked: int
    share: float
    wilson_low: float
    wilson_high: float
    bootstrap_low: float
    bootstrap_high: float


def read_trials(table: Path, data: Path | None = None) -> list[Trial]:
    """The rows of a CSV file with the columns dataset, source, driving and one column
    per system, with its name.

    Paths are relative to `data` (default: the table's folder). Raises UserError with the
    line of an incomplete row.
    """
    data = data or table.parent
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = list(reader.fieldnames or ())
            systems = [name for name in header if name not in ("dataset", "source", "driving")]
            if not {"dataset", "source", "driving"} <= set(header) or len(set(systems)) < 2 or "" in systems:
                raise UserError(
                    f"{table} must have the columns dataset,source,driving and one per system, for at least two systems"
                )
            if len(set(header)) < len(header):
                raise UserError(f"{table} has two columns of the same name; rename one")
            trials = []
            for row in reader:
                empty = [name for name in header if not (row[name] or "").strip()]
                if empty or None in row:
                    raise UserError(
                        f"line {reader.line_num} of {table} does not fit its columns {','.join(header)}; correct it"
                    )
                cells = {name: row[name].strip() for name in header}
                paths = {name: data / cells[name] for name in header if name != "dataset"}
                trials.append(
                    Trial(cells["dataset"], paths["source"], paths["driving"], {name: paths[name] for name in systems})
                )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table} cannot be read as a table ({error}); give a CSV file in UTF-8") from error
    if not trials:
        raise UserError(f"{table} has no rows; write one per question")
    return trials


def write_study(
    trials: Sequence[Trial], output: Path, key: Path, seed: int = 0, per_dataset: int | None = None, title: str = ""
) -> None:
    """Writes the page to `output` and its key to `key`; deterministic for the same seed and files.

    Each participant gets `per_dataset` random questions per data set (None: all). Raises UserError
    for missing, unsupported or too many files, and if `key` is the key of another page.
    """
    if output.absolute() == key.absolute():
        raise UserError(f"{key} cannot be both the page and its key; give another --key")
    check_at_least("--per_dataset", per_dataset)
    files = {path for trial in trials for path in (trial.source, trial.driving, *trial.results.values())}
    contents = _embed(sorted(files))
    study = hashlib.sha256(repr((seed, [contents[path] for path in sorted(files)])).encode()).hexdigest()[:16]
    rng = random.Random(f"{study} {seed}")
    groups = {name: f"{rng.getrandbits(48):012x}" for name in sorted({trial.dataset for trial in trials})}
    shown: list[dict[str, Any]] = []
    secret: dict[str, dict[str, Any]] = {}
    for trial in trials:
        token = f"{rng.getrandbits(48):012x}"
        options = {f"{rng.getrandbits(48):012x}": system for system in trial.results}
        # sorted by the random token, so that the page's order does not reveal the table's
        choices = [{"id": option, "media": contents[trial.results[options[option]]]} for option in sorted(options)]
        question: dict[str, Any] = {"id": token, "group": groups[trial.dataset], "options": choices}
        shown.append(question | {"source": contents[trial.source], "driving": contents[trial.driving]})
        secret[token] = {"dataset": trial.dataset, "source": str(trial.source), "driving": str(trial.driving)}
        secret[token] |= {"options": options}
    page = {"study": study, "per_dataset": per_dataset, "trials": sorted(shown, key=lambda t: t["id"])}
    text = rendered("user_study.html", {"study": page, "title": title or "Which video is better?"})
    systems = list(trials[0].results)
    if key.exists() and _read(key, "key")["study"] != study:
        raise UserError(f"{key} is the key of another page, whose answers need it; move it away or give another --key")
    held = {"format": f"{_FORMAT} key", "study": study, "seed": seed, "systems": systems, "trials": secret}
    _write(key, json.dumps(held, indent=2) + "\n")  # written first, since a page without its key would be worthless
    _write(output, text)


def tally(key: Path, answers: Sequence[Path], seed: int = 0) -> list[Cell]:
    """Tallies the answers like Table 3: a cell per question, data set (and "all" if there
    are several) and system.

    Raises UserError for a corrupt file, a file of another study, or a
    participant who appears twice.
    """
    held = _read(key, "key")
    people: dict[str, Path] = {}
    counts: list[dict[tuple[str, str, str], int]] = []  # file of each participant
    for path in answers:
        given = _read(path, "answers")
        try:
            if given["study"] != held["study"]:
                raise UserError(f"{path} has answers to another study than {key}; omit it or give its key")
            person = str(given["participant"]).strip().casefold()
            if person in people:
                raise UserError(f"{path} and {people[person]} are from the same participant; omit one of them")
            people[person] = path
            counts.append(_count(given["answers"], held["trials"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} does not fit {key}; give the file as the page saved it") from error
    if not any(counts):
        raise UserError("no answers; give the JSON files that the page saved with --tally")
    datasets = list(dict.fromkeys(trial["dataset"] for trial in held["trials"].values()))
    rows = [(name, [name]) for name in datasets] + ([("all", datasets)] if len(datasets) > 1 else [])
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(counts), (_RESAMPLES, len(counts)))
    cells = []
    for question in QUESTIONS:
        for label, members in rows:
            # (participants, systems): number of choices
            chosen = np.array(
                [[sum(c.get((question, m, s), 0) for m in members) for s in held["systems"]] for c in counts]
            )
            asked = int(chosen.sum())
            if not asked:
                continue
            sums = chosen[picks].sum(axis=1)
            sums = sums[sums.sum(axis=1) > 0]  # resamples without an answer to this row are ignored
            low, high = np.quantile(sums / sums.sum(axis=1, keepdims=True), [0.025, 0.975], axis=0)
            for i, system in enumerate(held["systems"]):
                hits = int(chosen[:, i].sum())
                cells.append(
                    Cell(
                        question,
                        label,
                        system,
                        hits,
                        asked,
                        hits / asked,
                        *wilson(hits, asked),
                        float(low[i]),
                        float(high[i]),
                    )
                )
    return cells


def wilson(hits: int, asked: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of the proportion `hits` / `asked`; `asked` > 0."""
    share, z2 = hits / asked, _Z**2 / asked
    middle = (share + z2 / 2) / (1 + z2)
    half = _Z * math.sqrt(share * (1 - share) / asked + z2 / (4 * asked)) / (1 + z2)
    return max(0.0, middle - half), min(1.0, middle + half)


def table(cells: Sequence[Cell]) -> str:
    """The cells as a Markdown table like the paper's: rows are questions and data
    sets, columns are systems.
    """
    systems = list(dict.fromkeys(cell.system.replace("|", "\\|") for cell in cells))
    lines = ["| question | data set | answers | " + " | ".join(systems) + " |", "| --- " * (3 + len(systems)) + "|"]
    for start in range(0, len(cells), len(systems)):
        row = cells[start : start + len(systems)]
        shares = [f"{c.share:.0%} [{c.wilson_low:.0%}, {c.wilson_high:.0%}]" for c in row]
        dataset = row[0].dataset.replace("|", "\\|")
        lines.append(f"| {row[0].question} | {dataset} | {row[0].asked} | " + " | ".join(shares) + " |")
    return "\n".join(lines)


def _count(answers: list[dict[str, Any]], trials: dict[str, Any]) -> dict[tuple[str, str, str], int]:
    counts: dict[tuple[str, str, str], int] = {}
    if len({answer["trial"] for answer in answers}) < len(answers):
        raise KeyError("a question is answered twice")
    for answer in answers:
        trial = trials[answer["trial"]]
        for question, name in QUESTIONS.items():
            cell = (question, trial["dataset"], trial["options"][answer[name]])
            counts[cell] = counts.get(cell, 0) + 1
    return counts


def _embed(paths: Sequence[Path]) -> dict[Path, str]:
    """Data URIs."""
    total, result = 0, {}
    for path in paths:
        kind = _KINDS.get(path.suffix.lower())
        if kind is None:
            raise UserError(f"{path} has a format that some browsers do not play; give {', '.join(_KINDS)}")
        try:
            if not path.is_file():
                raise FileNotFoundError(None, "it is not a file")
            total += path.stat().st_size
            if total > _LARGEST:
                raise UserError(f"the files up to {path} exceed {_LARGEST >> 20} MiB; give fewer or smaller ones")
            result[path] = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); correct the table of questions") from error
    return result


def _read(path: Path, what: str) -> dict[str, Any]:
    try:
        content = json_files.read(path, _LARGEST)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); give the {what} file as it was saved") from error
    if not isinstance(content, dict) or content.get("format") != f"{_FORMAT} {what}":
        raise UserError(f"{path} is not the {what} file of a user study; give the {what} file as it was saved")
    return content


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); give another output") from error
