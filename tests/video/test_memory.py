"""Does a long video need more memory than a short one? Nothing but a few bytes of index for each frame."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SHORT, LONG = 400, 4000
BOUND = 30.0
"""MB. Kept as they are decoded, 3,600 frames more would be 177 MB."""


@pytest.mark.subprocess
@pytest.mark.parametrize("what", ["animate", "prepare"])
def test_memory_does_not_grow_with_the_length_of_a_video(what):
    command = [sys.executable, str(Path(__file__).parents[1] / "helpers/memory_run.py"), what, str(SHORT), str(LONG)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    before, after_short, after_long = json.loads(done.stdout.splitlines()[-1])
    assert before < after_short
    assert after_long - after_short < BOUND


BEGUN_AGAIN = (
    "import os, sys; from maskanim_jax.utils.memory import reexec_with_huge_pages; reexec_with_huge_pages()\n"
    "print(os.getpid(), os.environ['GLIBC_TUNABLES'], sys.argv[1:])"
)


@pytest.mark.subprocess
@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux'")
@pytest.mark.parametrize("set_already", [False, True])
def test_a_command_begins_again_with_huge_pages_as_the_same_process_with_the_same_arguments(set_already):
    environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    if set_already:
        environment["GLIBC_TUNABLES"] = ""
    command = [sys.executable, "-c", BEGUN_AGAIN, "--a=b c", ""]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    said = process.communicate(timeout=60)[0].split(maxsplit=1)
    expected = "" if set_already else "glibc.malloc.hugetlb=1 "
    assert process.returncode == 0
    assert int(said[0]) == process.pid
    assert said[1] == f"{expected}['--a=b c', '']\n"
