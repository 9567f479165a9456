"""Which landmark and identity networks can metrics use, and which are available on this machine?

`docs/metrics.md` describes each network, its source and its licence. Networks and their runtimes
are imported when they are created.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from maskanim_jax.errors import UserError

BUILT_IN = {
    "blazepose-full": "blazepose:BlazePose",
    "movenet-thunder": "movenet:MoveNet",
    "dlib-68": "dlib_faces:Dlib68",
    "facemesh": "facemesh:FaceMesh",
    "dlib-face": "dlib_faces:DlibFace",
    "mobilenetv2": "mobilenet:MobileNet",
}
"""The module in this folder and the class, by name."""


def make(name: str, cache: Path | None = None) -> Any:
    """A `PointsBackend` or `EmbeddingBackend`, by its name in BUILT_IN or as
    the user's `module:Class`.

    Raises UserError for an unknown name, and if its weights or its runtime are not installed.
    """
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)(cache)
    module, colon, attribute = name.partition(":")
    if not colon:
        raise UserError(f"back-end {name} is unknown: use {', '.join(BUILT_IN)}, or your own as module:Class")
    try:
        backend = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"the back-end {name} can't be loaded ({error}): correct its module and class") from error
    wanted = ("name", "subject", "licence")
    if not all(hasattr(backend, each) for each in wanted) or not (
        hasattr(backend, "points") or hasattr(backend, "embed")
    ):
        raise UserError(
            f"the back-end {name} lacks name, subject, licence, or points() and embed(): see docs/metrics.md"
        )
    return backend


def ready(names: Iterable[str] = tuple(BUILT_IN), cache: Path | None = None) -> tuple[list[Any], dict[str, str]]:
    """The available back-ends, and for each of the others the reason why it is not."""
    backends, reasons = [], {}
    for name in names:
        try:
            backends.append(make(name, cache))
        except UserError as error:
            reasons[name] = str(error)
    return backends, reasons
