"""Where does a config deviate from the paper?

Each system has a table of rows; this module compares it with a config.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ml_collections import ConfigDict


class Deviation(NamedTuple):
    """A row: a setting, its value in the paper, and the sentence for another value.

    `field` is a dotted path, or several separated by blanks, whose values are then compared as a
    tuple. `paper` is a value, or a function of the config. `sentence` is a format string with
    `value` and the config `c`. `when` limits the row to some configs.
    """

    field: str
    paper: Any
    sentence: str
    when: Callable[[ConfigDict], bool] | None = None


TRAINING = (
    Deviation("optim.learning_rate", 2e-4, "the learning rate is {value:g}, not 2e-4"),
    Deviation("optim.warmup_steps", 0, "the learning rate warms up over {value} steps"),
    Deviation("optim.cosine_steps", 0, "the learning rate follows a cosine to zero at step {value}"),
    Deviation("optim.ema", 0.0, "results are those of averaged weights, with decay {value:g}"),
    Deviation("init_from", "", "the networks start from {value}"),
    Deviation("loss.vgg", "imagenet", "the perceptual loss uses untrained features of VGG-19"),
)
"""Rows that all systems share."""


def sentences(config: ConfigDict, table: Iterable[Deviation]) -> list[str]:
    """The sentences of the rows whose value is not the paper's, in the table's order."""
    found = []
    for row in table:
        values = tuple(_value(config, path) for path in row.field.split())
        value = values if len(values) > 1 else values[0]
        paper = row.paper(config) if callable(row.paper) else row.paper
        if value != paper and (row.when is None or row.when(config)):
            found.append(row.sentence.format(value=value, c=config))
    return found


def _value(config: ConfigDict, path: str) -> Any:
    """The value at a dotted path; lists become tuples, as a saved config has lists."""
    value: Any = config
    for name in path.split("."):
        value = value[name]
    return tuple(value) if isinstance(value, list | tuple) else value
