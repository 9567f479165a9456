"""What does the demo page show, and what happens on a click?

`web.job` turns uploads into two videos.
"""

from __future__ import annotations

import html
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported, too
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr

from maskanim_jax.animation.animator import Animator
from maskanim_jax.errors import UserError
from maskanim_jax.video.images import Fit
from maskanim_jax.web.checkpoints import ModelCache, preview
from maskanim_jax.web.controls import MEASURED_FROM_A_FRAME, Control, controls, flags, for_animator
from maskanim_jax.web.job import AnimationRequest, make
from maskanim_jax.web.sessions import Sessions
from maskanim_jax.workdir.results import InputPair

COLUMN, HEIGHT = 280, 340
"""Minimum column width and height of images and videos, in pixels."""
CAMERA = {"video": {"width": {"ideal": 640}, "height": {"ideal": 480}}}
"""What the browser is asked for: of a larger picture a slow machine records a few frames only, and
checkpoints see a few hundred pixels.
"""
SWEEP = (60, 3600)
"""(interval, age) in seconds: how often old files are removed, and how old they must be."""
FITS = {"crop": "crop the centre", "pad": "show the whole frame"}
TITLE = "Animate a picture"
TEXT = """Press Animate to see the example move. Or choose a picture and a driving video of your own, or take both with the camera.
Both should show one object of the kind that the checkpoint was trained on, filling a square alike. Animate people only with their consent, and
mark results as made."""
CSS = """
#source img { width: 100%; height: 100%; object-fit: contain; }
#driving video { max-height: 285px; }
#examples .grid-wrap { min-height: 0; height: auto; max-height: none; }
#examples .grid-container { grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); height: auto; }
#examples .thumbnail-item { aspect-ratio: 2 / 1; }
#strip .wrap { overflow-x: auto; justify-content: flex-start; }
#strip video { min-width: 640px; }
"""
"""Small pictures fill their place, and strips can be read on a phone."""


def build(models: ModelCache, root: Path, max_frames: int) -> gr.Blocks:
    """The page; `root` is the folder where Gradio keeps files, `max_frames` the number of
    driving frames that are taken.

    Raises UserError when the first checkpoint cannot be loaded.
    """
    models.animator(next(iter(models.paths)))
    sessions = Sessions(root)
    labels = list(models.paths)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=SWEEP) as page:
        gr.Markdown(f"# {TITLE}\n{TEXT}")
        with gr.Row():
            with gr.Column(min_width=COLUMN):
                source = gr.Image(
                    label="picture", type="filepath", image_mode=None, buttons=[], height=HEIGHT, elem_id="source"
                )
                checkpoint = gr.Dropdown(labels, value=labels[0], label="checkpoint", elem_id="checkpoint")
            with gr.Column(min_width=COLUMN):
                driving = gr.Video(
                    label="driving video",
                    buttons=[],
                    loop=True,
                    height=HEIGHT,
                    webcam_options=gr.WebcamOptions(constraints=CAMERA),
                    elem_id="driving",
                )
                button = gr.Button("Animate", variant="primary", elem_id="animate")
            with gr.Column(min_width=COLUMN):
                result = gr.Video(
                    label="result", interactive=False, autoplay=True, loop=True, height=HEIGHT, elem_id="result"
                )
                notes = gr.Textbox(label="notes", interactive=False, elem_id="notes")
        with gr.Column(visible=False) as examples:
            gr.Markdown("### Examples\nA picture and a driver each. Click one to take it.")
            gallery = gr.Gallery(
                label="examples",
                show_label=False,
                columns=4,
                height="auto",
                object_fit="cover",
                allow_preview=False,
                interactive=False,
                buttons=[],
                elem_id="examples",
            )
        with gr.Accordion("Expert settings", open=False, elem_id="expert"):
            fit = gr.Radio(
                [(FITS[name], name) for name in get_args(Fit)], value="crop", label="make frames square", elem_id="fit"
            )
            known = controls()
            best = gr.Checkbox(
                False,
                label="best first frame",
                info="measure relative motion from the driving frame that is nearest to the picture's pose",
                elem_id="best-frame",
                visible=False,
            )
        with gr.Accordion("Driver from a GIF or another file", open=False, elem_id="other-driver"):
            other = gr.File(label="driving file", elem_id="other")
        gr.Markdown("### How it came about", elem_id="strip-title")
        strip = gr.Video(
            label="intermediate pictures",
            show_label=False,
            interactive=False,
            autoplay=True,
            loop=True,
            elem_id="strip",
        )

        parts = [part for control in known.values() for part in control.parts]
        for component in (source, driving, other):
            _only_uploads(component)

        def choose(label: str, picture: object, video: object, request: gr.Request) -> list[Any]:
            with show_user_errors():
                animator = models.animator(label)
                measured = MEASURED_FROM_A_FRAME in flags(animator.run.config.system)
                pairs = models.examples(label)
                shown = [
                    gr.update(visible=bool(pairs)),
                    gr.update(value=[preview(pair) for pair in pairs], selected_index=None),
                ]
                taken: list[Any] = [gr.skip(), gr.skip()]
                if pairs and sessions.may_replace(picture) and sessions.may_replace(video):
                    taken = _shown(sessions, request, pairs[0])
                return [*for_animator(animator, known), gr.update(visible=measured, value=False), *shown, *taken]

        def take(label: str, event: gr.SelectData, request: gr.Request) -> list[str]:
            with show_user_errors():
                return _shown(sessions, request, models.examples(label)[int(event.index)])

        def animate(
            given: dict[Any, Any],
            request: gr.Request,
            progress: gr.Progress = gr.Progress(),  # noqa: B008
        ) -> tuple[str, str, str]:
            session = str(request.session_hash)
            with show_user_errors():
                animator = models.animator(given[checkpoint])
                asked = AnimationRequest(
                    *_inputs(*(sessions.uploaded(session, given[one]) for one in (source, driving, other))),
                    _options(animator, known, given),
                    given[fit],
                    given[best] is True and MEASURED_FROM_A_FRAME in flags(animator.run.config.system),
                    max_frames,
                )
                progress((0, None), desc="loading", unit="frames")

                def report(doing: str, done: int, total: int | None) -> None:
                    progress((done, total), desc=doing, unit="frames")

                made = make(animator, asked, sessions.folder(session), secrets.token_hex(4), report)
                said = [f"{made.frames} frames by {animator.run.system.name}, step {animator.step}.", *made.warnings]
                return str(made.result), str(made.strip), "\n".join(said)

        def leave(request: gr.Request) -> None:
            sessions.close(str(request.session_hash))

        given, updated = [checkpoint, source, driving], [*parts, best, examples, gallery, source, driving]
        quiet: dict[str, Any] = {"preprocess": False, "show_progress": "hidden", "api_visibility": "private"}
        page.load(choose, given, updated, **quiet)
        checkpoint.change(choose, given, updated, **quiet)
        gallery.select(take, checkpoint, [source, driving], **quiet)
        button.click(
            animate,
            {checkpoint, source, driving, other, fit, best, *parts},
            [result, strip, notes],
            api_name="animate",
            preprocess=False,  # Gradio's own image reading has no size limits and no clear errors
            trigger_mode="once",
        )
        page.unload(leave)
    return page


def _shown(sessions: Sessions, request: gr.Request, pair: InputPair) -> list[str]:
    return [str(path) for path in sessions.copy_example(str(request.session_hash), pair)]


def launch(page: gr.Blocks, host: str, port: int | None, share: bool, megabytes: int) -> None:
    """Starts serving in the background: files of up to `megabytes`, nothing fetched from elsewhere,
    nothing told to anybody.

    Raises UserError when the port is taken or the host is not of this machine.
    """
    page.queue(max_size=20)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=share,
            max_file_size=megabytes * 1_000_000,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            mcp_server=False,
            ssr_mode=False,
            css=CSS,
            pwa=False,
        )
    except OSError as error:
        raise UserError(f"{host}:{port or 'any port'} cannot be listened at: give another --port or --host") from error


@contextmanager
def show_user_errors() -> Iterator[None]:
    """Shows a UserError as a message on the page, without a traceback."""
    try:
        yield
    except UserError as error:
        # Gradio shows messages as HTML, and file names are untrusted
        raise gr.Error(html.escape(str(error)), duration=None, title="Not yet", print_exception=False) from None


def _inputs(source: Path | None, driving: Path | None, other: Path | None) -> tuple[Path, Path]:
    """(picture, driving); raises UserError when one is missing or there are two drivers."""
    if source is None:
        raise UserError("there is no picture yet: upload one, or take one with the camera")
    if driving is not None and other is not None:
        raise UserError("there are two driving files: remove the video, or the file in the other tab")
    chosen = driving or other
    if chosen is None:
        raise UserError("there is no driving video yet: upload one, or record one with the camera")
    return source, chosen


def _options(animator: Animator, known: Mapping[str, Control], given: Mapping[Any, Any]) -> dict[str, str]:
    """The options of the animator's system as strings."""
    texts = {
        name: known[name].text([given[part] for part in known[name].parts])
        for name in flags(animator.run.config.system)
    }
    return {name: text for name, text in texts.items() if text is not None}


def _only_uploads(component: Any) -> None:
    """Prevents visitors from giving a URL instead of a file, which Gradio would fetch."""
    plain = component.async_move_resource_to_block_cache

    async def local(path: str | Path | None) -> str | None:
        if "://" in str(path):
            raise gr.Error("only uploaded files are taken", print_exception=False)
        return await plain(path)

    component.async_move_resource_to_block_cache = local
