"""How are the authors' published videos measured?

`python -m maskanim_jax.evaluate_published FOLDER`; see docs/published-outputs.md.
"""

from __future__ import annotations

import argparse

from maskanim_jax.errors import check_at_least, run_main
from maskanim_jax.evaluation.published import FRAMES, as_text, evaluate_set, write
from maskanim_jax.evaluation.published_panels import find_sets
from maskanim_jax.pretrained import backends
from maskanim_jax.utils.paths import user_path


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m maskanim_jax.evaluate_published",
        description="Measures videos with eleven panels, as published by the authors of Perturbed Masks: pose against the driver, "
        "identity against the source, background kept (docs/published-outputs.md).",
    )
    parser.add_argument("folder", type=user_path, help="videos, or folders of videos (one set each)")
    parser.add_argument("--output", type=user_path, help="folder for published.json and published.csv; default: none")
    parser.add_argument(
        "--frames", type=int, default=FRAMES, help=f"evenly spaced frames of each clip; default: {FRAMES}"
    )
    parser.add_argument(
        "--backends",
        nargs="+",
        metavar="NAME",
        help=f"landmark and identity networks, of {', '.join(backends.BUILT_IN)}, or module:Class; default: all that are installed",
    )
    given = parser.parse_args(arguments)
    check_at_least("--frames", given.frames)
    sets = find_sets(given.folder)
    reasons: dict[str, str] = {}
    if given.backends:
        networks = [backends.make(name) for name in given.backends]
    else:
        networks, reasons = backends.ready()
    for name, reason in reasons.items():
        print(f"not measured with {name}: {reason}")
    done = []
    for name, paths in sets.items():
        done.append(evaluate_set(name, paths, networks, given.frames, progress=True))
        print(f"\n{as_text(done[-1])}\n")
    if given.output:
        facts = {
            "frames_of_each_clip": given.frames,
            "networks": {network.name: {"licence": network.licence, "proxy": True} for network in networks},
            "not_installed": reasons,
        }
        write(given.output, done, facts)
        print(f"the numbers are in {given.output}/published.json and published.csv")


if __name__ == "__main__":
    run_main(main)
