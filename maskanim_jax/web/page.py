"""What does the demo page show? One function per section; `web.events` handles clicks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it when it is imported, too
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr

from maskanim_jax.errors import UserError
from maskanim_jax.video.images import Fit
from maskanim_jax.web.checkpoints import ModelCache
from maskanim_jax.web.controls import controls
from maskanim_jax.web.events import Events, Examples, Inputs, Options, Results
from maskanim_jax.web.sessions import Sessions

COLUMN, HEIGHT = 280, 340
"""Minimum column width and height of images and videos, in pixels."""
CAMERA = {"video": {"width": {"ideal": 640}, "height": {"ideal": 480}}}
"""The camera's resolution: slow machines record only a few frames of a larger picture, and
checkpoints use a few hundred pixels.
"""
SWEEP = (60, 3600)
"""(interval, age) in seconds: how often old files are removed, and how old they must be."""
FITS = {"crop": "crop the centre", "pad": "show the whole frame"}
TITLE = "Animate a picture"
TEXT = """Press Animate to see the example move. Or choose your own picture and driving video, or take both with the camera.
Both should show one object of the kind that the checkpoint was trained on, filling a square in the same way.
Animate people only with their consent, and mark results as generated."""
CSS = """
#source img { width: 100%; height: 100%; object-fit: contain; }
#driving video { max-height: 285px; }
#examples .grid-wrap { min-height: 0; height: auto; max-height: none; }
#examples .grid-container { grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); height: auto; }
#examples .thumbnail-item { aspect-ratio: 2 / 1; }
#strip .wrap { overflow-x: auto; justify-content: flex-start; }
#strip video { min-width: 640px; }
"""
"""Small pictures fill their area, and strips can be read on a phone."""


def build(models: ModelCache, root: Path, max_frames: int) -> gr.Blocks:
    """The page. Gradio keeps files in the folder `root`; driving videos may
    have `max_frames` frames.

    Raises UserError when the first checkpoint cannot be loaded.
    """
    models.animator(next(iter(models.paths)))
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=SWEEP) as page:
        gr.Markdown(f"# {TITLE}\n{TEXT}")
        with gr.Row():
            source, checkpoint = _picture(list(models.paths))
            driving, button = _driver()
            result, notes = _result()
        examples = _examples()
        options = _options()
        other = _other_driver()
        strip = _strip()
        inputs, results = Inputs(checkpoint, source, driving, other), Results(result, strip, notes)
        events = Events(models, Sessions(root), inputs, options, max_frames)
        _connect(page, events, button, inputs, examples, options, results)
    return page


def _picture(labels: list[str]) -> tuple[gr.Image, gr.Dropdown]:
    with gr.Column(min_width=COLUMN):
        source = gr.Image(
            label="picture", type="filepath", image_mode=None, buttons=[], height=HEIGHT, elem_id="source"
        )
        checkpoint = gr.Dropdown(labels, value=labels[0], label="checkpoint", elem_id="checkpoint")
    return source, checkpoint


def _driver() -> tuple[gr.Video, gr.Button]:
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
    return driving, button


def _result() -> tuple[gr.Video, gr.Textbox]:
    with gr.Column(min_width=COLUMN):
        result = gr.Video(label="result", interactive=False, autoplay=True, loop=True, height=HEIGHT, elem_id="result")
        notes = gr.Textbox(label="notes", interactive=False, elem_id="notes")
    return result, notes


def _examples() -> Examples:
    with gr.Column(visible=False) as column:
        gr.Markdown("### Examples\nA picture and a driver each. Click one to use it.")
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
    return Examples(column, gallery)


def _options() -> Options:
    with gr.Accordion("Expert settings", open=False, elem_id="expert"):
        fit = gr.Radio(
            [(FITS[name], name) for name in get_args(Fit)], value="crop", label="make frames square", elem_id="fit"
        )
        system = controls()
        best_frame = gr.Checkbox(
            False,
            label="best first frame",
            info="measure relative motion from the driving frame that is nearest to the picture's pose",
            elem_id="best-frame",
            visible=False,
        )
    return Options(fit, system, best_frame)


def _other_driver() -> gr.File:
    with gr.Accordion("Driver from a GIF or another file", open=False, elem_id="other-driver"):
        return gr.File(label="driving file", elem_id="other")


def _strip() -> gr.Video:
    gr.Markdown("### Intermediate pictures", elem_id="strip-title")
    return gr.Video(
        label="intermediate pictures", show_label=False, interactive=False, autoplay=True, loop=True, elem_id="strip"
    )


def _connect(
    page: gr.Blocks,
    events: Events,
    button: gr.Button,
    inputs: Inputs,
    examples: Examples,
    options: Options,
    results: Results,
) -> None:
    """Connects the components with the functions that handle their events."""
    for component in (inputs.source, inputs.driving, inputs.other):
        _only_uploads(component)
    given = [inputs.checkpoint, inputs.source, inputs.driving]
    pair = [inputs.source, inputs.driving]
    updated = [*options.parts, options.best_frame, *examples, *pair]
    quiet: dict[str, Any] = {"preprocess": False, "show_progress": "hidden", "api_visibility": "private"}
    page.load(events.choose, given, updated, **quiet)
    inputs.checkpoint.change(events.choose, given, updated, **quiet)
    examples.gallery.select(events.take, inputs.checkpoint, pair, **quiet)
    button.click(
        events.animate,
        {*inputs, options.fit, options.best_frame, *options.parts},
        [results.result, results.strip, results.notes],
        api_name="animate",
        preprocess=False,  # Gradio's own image reading has no size limits and no clear errors
        trigger_mode="once",
    )
    page.unload(events.leave)


def launch(page: gr.Blocks, host: str, port: int | None, share: bool, megabytes: int) -> None:
    """Starts serving in the background. Files may have `megabytes`; nothing is fetched from other
    servers, and no usage data is sent.

    Raises UserError if the port is taken or `host` is not an address of this machine.
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
        raise UserError(f"{host}:{port or 'any port'} can't be used: give another --port or --host") from error


def _only_uploads(component: Any) -> None:
    """Prevents visitors from giving a URL instead of a file, which Gradio would fetch."""
    plain = component.async_move_resource_to_block_cache

    async def local(path: str | Path | None) -> str | None:
        if "://" in str(path):
            raise gr.Error("only uploaded files are taken", print_exception=False)
        return await plain(path)

    component.async_move_resource_to_block_cache = local
