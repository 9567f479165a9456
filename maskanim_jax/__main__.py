"""Which commands are there? `python -m maskanim_jax` lists them; `--version` prints the version."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

import maskanim_jax
from maskanim_jax.errors import UserError, run_main

PACKAGES = ("maskanim_jax", "input_pipeline")


def commands() -> Iterator[tuple[str, str]]:
    """(module, question it answers) for every module that runs with `python -m`.

    They are found by reading the sources; nothing is imported.
    """
    home = Path(__file__).resolve().parents[1]
    for package in PACKAGES:
        for path in sorted((home / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            module = ".".join(path.relative_to(home).with_suffix("").parts).removesuffix(".__main__")
            if '\nif __name__ == "__main__":' in text and module != "maskanim_jax":
                yield module, _sentence(module, ast.get_docstring(ast.parse(text)) or "")


def _sentence(module: str, docstring: str) -> str:
    """The question that a module answers: its docstring up to the first question mark.

    Without a question mark, the first line.
    """
    line = docstring.partition("\n")[0]
    question, mark, _ = line.partition("?")
    return (question + mark).strip() if mark else line.strip("`.").removeprefix(f"python -m {module} ")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; raises UserError."""
    flags = argparse.ArgumentParser(
        prog="python -m maskanim_jax", description="Prints the version or lists the commands."
    )
    flags.add_argument("--version", action="store_true", help="print the version and exit")
    args, rest = flags.parse_known_args(argv)
    if rest:
        known = [name for name, _ in commands() if name.rpartition(".")[2] == rest[0]]
        hint = f"it is `python -m {known[0]}`" if known else "`python -m maskanim_jax` lists the commands"
        raise UserError(f"'{rest[0]}' is not an argument of `python -m maskanim_jax`: {hint}")
    print(f"maskanim_jax {maskanim_jax.__version__}")
    if not args.version:
        print("\nCommands, each with --help:")
        listed = list(commands())
        width = max(len(name) for name, _ in listed)
        for name, message in listed:
            print(f"  python -m {name:{width}}  {message}")
    return 0


if __name__ == "__main__":
    run_main(main)
