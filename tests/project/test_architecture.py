"""Does every folder import only the folders below it? The table is the architecture: a folder may import those in its row, and no others."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("maskanim_jax", "configs", "input_pipeline")
MOST_ROOMS, MOST_LEVELS = 40, 13

GROUND = {"errors", "utils"}
"""What everything may import; the two know nothing above them."""
MAY_IMPORT = {
    # files, pictures, settings
    "serialization": "",
    "buckets": "",
    "video": "",
    "configs": "",
    "input_pipeline": "video configs buckets",
    # networks, methods and what measures them
    "nn": "",
    "distributed": "nn",
    "pretrained": "serialization video",
    "losses": "nn pretrained",
    "metrics": "nn serialization pretrained",
    "systems": "configs nn distributed losses",
    # a run and its folder
    "workdir": "configs systems buckets",
    "checkpoints": "serialization distributed systems workdir buckets",
    # what is done with a run
    "conversion": "buckets serialization configs nn distributed systems workdir checkpoints",
    "animation": "video distributed systems checkpoints conversion",
    "exporting": "nn systems checkpoints animation",
    "evaluation": "buckets video input_pipeline nn distributed pretrained metrics systems workdir checkpoints animation",
    "training": "buckets video input_pipeline nn distributed pretrained losses metrics systems workdir checkpoints evaluation",
    "reports": "buckets video configs input_pipeline metrics systems workdir checkpoints animation evaluation",
    "web": "video systems workdir checkpoints animation",
}
"""Each folder (of `maskanim_jax`, or beside it) with the folders that it may import. It stands above all of them, so no row names a later one."""


def name_of(path: Path) -> str:
    """The dotted name of a module."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def modules() -> dict[str, Path]:
    """Every module by its dotted name."""
    return {name_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imported(source: str, package: str, known: dict[str, Path]) -> set[str]:
    """The modules among `known` that a source imports anywhere, functions included; not what only a type checker sees."""
    tree = ast.parse(source)
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{package} has a relative import: write the whole name"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in names}
    return found & known.keys()


@cache
def imports() -> dict[str, set[str]]:
    """Every module with the modules that it imports."""
    return {name: imported(path.read_text(), name, modules()) - {name} for name, path in modules().items()}


def room(name: str) -> str:
    """The folder of a module: `video`, `input_pipeline`; a file at the top of `maskanim_jax` is a room of its own."""
    first, *rest = name.split(".")
    return rest[0] if first == "maskanim_jax" and rest else first


def rooms() -> dict[str, set[str]]:
    """Every room with the rooms that it imports."""
    found: dict[str, set[str]] = {}
    for name, others in imports().items():
        found.setdefault(room(name), set()).update(room(other) for other in others if room(other) != room(name))
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Nodes that lead back to themselves, in order; empty when there are none."""
    done: set[str] = set()

    def follow(node: str, way: list[str]) -> list[str]:
        if node in way:
            return [*way[way.index(node) :], node]
        if node in done:
            return []
        for other in sorted(graph[node]):
            if found := follow(other, [*way, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := follow(node, []))), [])


def level(node: str, graph: dict[str, set[str]]) -> int:
    """How high a room stands: above all that it imports. The graph must have no circle."""
    return 1 + max((level(other, graph) for other in graph[node]), default=0)


def test_the_table_names_every_folder_from_the_ground_up():
    folders = {path.parent.name for path in (ROOT / "maskanim_jax").glob("*/__init__.py")}
    assert folders | {"configs", "input_pipeline"} == MAY_IMPORT.keys() | {"utils"}
    below: set[str] = set()
    for name, row in MAY_IMPORT.items():
        assert set(row.split()) <= below, f"{name} may import a folder that stands after it"
        below.add(name)


def test_the_page_shows_the_same_table():
    """docs/architecture.md has a row for every folder, with the folders that it may import in the last column."""
    rows = [
        line.strip("|").split("|")
        for line in (ROOT / "docs" / "architecture.md").read_text().splitlines()
        if line[:1] == "|"
    ]
    shown = {row[0].strip().strip("`"): row[-1].replace("`", "").replace(",", "").split() for row in rows}
    for name, row in MAY_IMPORT.items():
        assert shown.get(name) == row.split(), f"docs/architecture.md does not show what {name} may import"


@pytest.mark.parametrize("name", [*sorted(GROUND), *MAY_IMPORT])
def test_a_folder_imports_only_what_it_stands_on(name):
    allowed = {*MAY_IMPORT.get(name, "").split(), *GROUND, name}
    wrong = [
        f"{module} imports {other}"
        for module, others in imports().items()
        if room(module) == name
        for other in sorted(others)
        if room(other) not in allowed and other != "maskanim_jax"
    ]
    assert not wrong, f"{name} may import {', '.join(sorted(allowed))}; these imports run up: {'; '.join(wrong)}"


def test_no_folder_imports_a_command():
    """Files at the top of `maskanim_jax` parse and call: only other files there, and `__init__`, know them."""
    tops = {room(name) for name in modules() if name.count(".") == 1} - MAY_IMPORT.keys() - GROUND - {"maskanim_jax"}
    assert not {name: found for name in MAY_IMPORT if (found := rooms()[name] & tops)}


def test_no_files_import_each_other_in_a_circle():
    assert circle(imports()) == []


def test_the_house_has_few_rooms_on_few_levels():
    graph = rooms()
    assert circle(graph) == []
    levels = {name: level(name, graph) for name in graph}
    assert len(graph) <= MOST_ROOMS
    assert max(levels.values()) <= MOST_LEVELS, levels


def test_what_the_checks_look_at_is_found():
    """An import in a function counts, one that only a type checker sees does not, and a circle is found by its way."""
    known = {name: Path() for name in ("a", "a.b", "c", "d")}
    code = "import c\nif TYPE_CHECKING:\n    import d\ndef f():\n    from a import b, other\n"
    assert imported(code, "x", known) == {"c", "a.b", "a"}
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
