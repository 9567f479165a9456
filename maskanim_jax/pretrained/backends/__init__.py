"""Which landmark and identity networks can metrics use, and which of them are ready on this machine?

`docs/metrics.md` says what each is, where it is from and under which licence. Networks and their
runtimes are imported when they are made.
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
"""Name to module of this folder and class."""


def make(name: str, cache: Path | None = None) -> Any:
    """A `PointsBackend` or `EmbeddingBackend` by its name here, or one of the user's as
    `module:Class`.

    Raises UserError for a name that there isn't, and when its weights or its runtime aren't
    installed.
    """
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)(cache)
    module, colon, attribute = name.partition(":")
    if not colon:
        raise UserError(f"there is no back-end {name}: use {', '.join(BUILT_IN)}, or one of your own as module:Class")
    try:
        backend = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"the back-end {name} can't be made ({error}): correct its module and class") from error
    wanted = ("name", "subject", "licence")
    if not all(hasattr(backend, each) for each in wanted) or not (
        hasattr(backend, "points") or hasattr(backend, "embed")
    ):
        raise UserError(
            f"the back-end {name} lacks name, subject, licence, or points() and embed(): see docs/metrics.md"
        )
    return backend


def ready(names: Iterable[str] = tuple(BUILT_IN), cache: Path | None = None) -> tuple[list[Any], dict[str, str]]:
    """The back-ends that can be made, and for each of the others the sentence that says why not."""
    backends, reasons = [], {}
    for name in names:
        try:
            backends.append(make(name, cache))
        except UserError as error:
            reasons[name] = str(error)
    return backends, reasons
