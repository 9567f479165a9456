"""What does a loaded checkpoint consist of?"""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from maskanim_jax.systems.interface import System, Variables


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A trained system, ready to use."""

    config: ConfigDict
    system: System
    variables: Variables
    step: int
