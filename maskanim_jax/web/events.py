"""What happens on a click on the demo page? `web.job` turns uploads into two videos."""

from __future__ import annotations

import html
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from maskanim_jax.animation.animator import Animator
from maskanim_jax.errors import UserError
from maskanim_jax.web.checkpoints import ModelCache, preview
from maskanim_jax.web.controls import MEASURED_FROM_A_FRAME, Control, flags, for_animator
from maskanim_jax.web.job import AnimationRequest, make
from maskanim_jax.web.sessions import Sessions
from maskanim_jax.workdir.results import InputPair


class Inputs(NamedTuple):
    """The components of a visitor's inputs."""

    checkpoint: gr.Dropdown
    source: gr.Image
    driving: gr.Video
    other: gr.File


class Examples(NamedTuple):
    """The section of examples; `column` is hidden if the checkpoint has none."""

    column: gr.Column
    gallery: gr.Gallery


class Options(NamedTuple):
    """The components of the expert settings; `system` has a control for
    each option of any system.
    """

    fit: gr.Radio
    system: dict[str, Control]
    best_frame: gr.Checkbox

    @property
    def parts(self) -> list[Any]:
        """The components of all controls, in order."""
        return [part for control in self.system.values() for part in control.parts]


class Results(NamedTuple):
    """The components that show a result."""

    result: gr.Video
    strip: gr.Video
    notes: gr.Textbox


class Events:
    """The functions that Gradio calls, with the state that they share."""

    def __init__(
        self, models: ModelCache, sessions: Sessions, inputs: Inputs, options: Options, max_frames: int
    ) -> None:
        self.models = models
        self.sessions = sessions
        self.inputs = inputs
        self.options = options
        self.max_frames = max_frames

    def choose(self, label: str, picture: object, video: object, request: gr.Request) -> list[Any]:
        """Shows the options and examples of a checkpoint, and its first example
        if nothing was uploaded.
        """
        with show_user_errors():
            animator = self.models.animator(label)
            measured = MEASURED_FROM_A_FRAME in flags(animator.run.config.system)
            pairs = self.models.examples(label)
            shown = [
                gr.update(visible=bool(pairs)),
                gr.update(value=[preview(pair) for pair in pairs], selected_index=None),
            ]
            taken: list[Any] = [gr.skip(), gr.skip()]
            if pairs and self.sessions.may_replace(picture) and self.sessions.may_replace(video):
                taken = self._copy(request, pairs[0])
            return [
                *for_animator(animator, self.options.system),
                gr.update(visible=measured, value=False),
                *shown,
                *taken,
            ]

    def take(self, label: str, event: gr.SelectData, request: gr.Request) -> list[str]:
        """Takes an example as picture and driving video."""
        with show_user_errors():
            return self._copy(request, self.models.examples(label)[int(event.index)])

    def animate(
        self,
        given: dict[Any, Any],
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[str, str, str]:
        """Animates; returns the paths of result and strip, and notes."""
        session = str(request.session_hash)
        with show_user_errors():
            animator = self.models.animator(given[self.inputs.checkpoint])
            files = (given[one] for one in (self.inputs.source, self.inputs.driving, self.inputs.other))
            asked = AnimationRequest(
                *_inputs(*(self.sessions.uploaded(session, file) for file in files)),
                _option_texts(animator, self.options.system, given),
                given[self.options.fit],
                given[self.options.best_frame] is True and MEASURED_FROM_A_FRAME in flags(animator.run.config.system),
                self.max_frames,
            )
            progress((0, None), desc="loading", unit="frames")

            def report(doing: str, done: int, total: int | None) -> None:
                progress((done, total), desc=doing, unit="frames")

            made = make(animator, asked, self.sessions.folder(session), secrets.token_hex(4), report)
            said = [f"{made.frames} frames by {animator.run.system.name}, step {animator.step}.", *made.warnings]
            return str(made.result), str(made.strip), "\n".join(said)

    def leave(self, request: gr.Request) -> None:
        """Removes the visitor's files when the page is closed."""
        self.sessions.close(str(request.session_hash))

    def _copy(self, request: gr.Request, pair: InputPair) -> list[str]:
        return [str(path) for path in self.sessions.copy_example(str(request.session_hash), pair)]


@contextmanager
def show_user_errors() -> Iterator[None]:
    """Shows a UserError as a message on the page, without a traceback."""
    try:
        yield
    except UserError as error:
        # Gradio shows messages as HTML, and file names are untrusted
        raise gr.Error(html.escape(str(error)), duration=None, title="Not yet", print_exception=False) from None


def _inputs(source: Path | None, driving: Path | None, other: Path | None) -> tuple[Path, Path]:
    """(picture, driving); raises UserError if one is missing or there are two drivers."""
    if source is None:
        raise UserError("there is no picture yet: upload one, or take one with the camera")
    if driving is not None and other is not None:
        raise UserError("there are two driving files: remove the video, or the file in the other tab")
    chosen = driving or other
    if chosen is None:
        raise UserError("there is no driving video yet: upload one, or record one with the camera")
    return source, chosen


def _option_texts(animator: Animator, known: Mapping[str, Control], given: Mapping[Any, Any]) -> dict[str, str]:
    """The options of the animator's system as strings."""
    texts = {
        name: known[name].text([given[part] for part in known[name].parts])
        for name in flags(animator.run.config.system)
    }
    return {name: text for name, text in texts.items() if text is not None}
