"""Does a progress bar leave a log file readable?"""

from __future__ import annotations

import io

import pytest

from maskanim_jax.utils.progress import SECONDS, ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("file", "interval"), [(io.StringIO(), SECONDS), (Terminal(), 0.1)])
def test_only_a_terminal_is_redrawn_often(file, interval):
    with ProgressBar(range(3), file=file) as bar:
        assert bar.mininterval == interval


def test_a_fast_loop_leaves_its_first_and_its_last_line():
    log = io.StringIO()
    assert list(ProgressBar(range(10_000), file=log)) == list(range(10_000))
    assert log.getvalue().strip().count("\r") == 1
