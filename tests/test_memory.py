"""Does a long video need more memory than a short one? Nothing but a few bytes of index for each frame."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SHORT, LONG = 400, 4000
BOUND = 30.0
"""MB. Kept as they are decoded, 3,600 frames more would be 177 MB, as float32 at the system's size 44 MB and more."""


@pytest.mark.parametrize("what", ["animate", "prepare"])
def test_memory_does_not_grow_with_the_length_of_a_video(what):
    command = [sys.executable, str(Path(__file__).parent / "memory_run.py"), what, str(SHORT), str(LONG)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    before, after_short, after_long = json.loads(done.stdout.splitlines()[-1])
    assert before < after_short
    assert after_long - after_short < BOUND
