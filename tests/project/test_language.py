"""Is the text in plain technical English, as far as a program can tell?

Docstrings wrap at 100 columns, and words that were replaced by the field's do not come back.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("maskanim_jax", "input_pipeline", "configs", "benchmarks", "scripts")
COLUMNS = 100
REPLACED = {
    r"\bmend(ed|s)?\b": "fix or repair",
    r"\bunasked\b": "automatic",
    r"is there already": "already exists",
    r"is there but": "say what is wrong",
    r"is no flag": "unknown flag",
    r"leave it away": "omit it",
    r"what there is\b": "name it",
    r"the other way round": "back",
    r"\btold apart\b": "distinguished",
    r"one behind the other": "consecutively or concatenated",
    r"\bstands alone\b": "cannot be combined with",
    r"process(es)? of (its|their) own": "its own process",
    r"repeating the source": "copying the source, or the copy-source baseline",
    r"\bshipped\b": "bundled",
    r"\bwhoever\b": "the process or person that",
    r"\bbystanders?\b": "distractor",
    r"cannot be: ": "is invalid, or must be ...",
    r"(?<![Tt]here )is no (config|file|run|flag|number|upload|folder|list)\b": "is not a ...",
}


def files(*suffixes):
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*"))] + pages
    return [path for path in found if path.suffix in suffixes and path.is_file()]


def docstrings(tree):
    """All strings that stand alone as a statement: of modules, classes, functions, fields and constants."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            value = getattr(statement, "value", None)
            if isinstance(statement, ast.Expr) and isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value


def too_long(text):
    lines = text.splitlines()
    return [
        number
        for string in docstrings(ast.parse(text))
        for number in range(string.lineno, string.end_lineno + 1)
        if len(lines[number - 1]) > COLUMNS
    ]


def replaced(text):
    """The replaced words in a text; line breaks inside a phrase count as blanks."""
    flat = re.sub(r"\s+(?:# |// )?", " ", text)
    return [f"{match[0]!r}: say {better}" for word, better in REPLACED.items() if (match := re.search(word, flat))]


def test_docstrings_wrap_at_100_columns():
    assert [f"{path}:{line}" for path in files(".py") for line in too_long(path.read_text())] == []


def test_replaced_words_stay_out():
    assert [f"{path}: {word}" for path in files(".py", ".md", ".html") for word in replaced(path.read_text())] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [("# mend the disk\n", 1), ("it is there\n    # already\n", 1), ("the element is missing\n", 0)],
)
def test_the_check_finds_replaced_words(text, found):
    assert len(replaced(text)) == found


def test_the_check_finds_long_docstrings():
    assert too_long(f'"""One line.\n\n{"x" * 101}\n"""\n') == [3]
    assert too_long(f'"""One line."""\nlong = "{"x" * 101}"\n') == []
