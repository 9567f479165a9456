"""Which settings come from environment variables? Numbers of seconds."""

from __future__ import annotations

import os

from maskanim_jax.errors import UserError

_A_DAY = 86400


def seconds_of(variable: str, default: float, least: float = 0.0) -> float:
    """The seconds in an environment variable, `default` if it is unset.

    Raises UserError for a value that is not a number from `least` to a day.
    """
    text = os.environ.get(variable)
    if text is None:
        return default
    try:
        seconds = float(text)
        if not least <= seconds <= _A_DAY:
            raise ValueError
    except ValueError as error:
        raise UserError(f"{variable}={text} must be a number of seconds from {least:g} to {_A_DAY}") from error
    return seconds
