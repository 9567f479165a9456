"""What all tests share: a private cache, one compilation cache, and the tiny data set, drawn once."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # subprocesses and tests share the helpers beside this file
os.environ.setdefault("JAX_PLATFORMS", "cpu")


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory):
    """Shards of the tiny puppets."""
    from tiny import tiny_config

    from maskanim_jax.data import ensure_shards

    return ensure_shards(tiny_config(tmp_path_factory.mktemp("puppets") / "shards"))
