"""What does the demo's page show, and what happens on a click? Uploads go in, `maskanim_jax.web.job` works, two videos come out."""

from __future__ import annotations

import html
import os
import secrets
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, get_args

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported, too
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr

from maskanim_jax.animation.animator import Animator, load
from maskanim_jax.checkpoints import bundled
from maskanim_jax.errors import UserError
from maskanim_jax.video.images import Fit
from maskanim_jax.web.controls import MEASURED_FROM_A_FRAME, Control, controls, flags, for_animator
from maskanim_jax.web.job import Asked, make

LOADED = 2
"""Checkpoints that are held in memory."""
SWEEP = (60, 3600)
"""Every so many seconds, files older than so many seconds are removed."""
FITS = {"crop": "crop the centre", "pad": "show the whole frame"}
TITLE = "Animate a picture"
TEXT = """Choose a picture and a driving video, or take both with the camera, and press Animate. Both should show one object of the kind that the
checkpoint was trained on, filling a square alike. Animate people only with their consent, and mark results as made."""


class Shelf:
    """The checkpoints that the page offers, by label; the last few that were used stay loaded."""

    def __init__(self, checkpoints: Sequence[str | Path]) -> None:
        self.paths = _labels(checkpoints)
        self._lock, self._load = Lock(), lru_cache(LOADED)(load)

    def animator(self, label: object) -> Animator:
        """The checkpoint behind a label, loaded; raises UserError when there is none or it cannot be read."""
        if not isinstance(label, str) or label not in self.paths:
            raise UserError("there is no such checkpoint: choose one of the list")
        with self._lock:
            return self._load(self.paths[label])

    def example(self, label: str) -> list[Path]:
        """The picture and the driving video that come with a shipped checkpoint; none with others."""
        path = Path(self.paths.get(label, ""))
        found = [bundled.example(path, file) for file in (bundled.SOURCE, bundled.DRIVING)]
        return [] if path in found else found


def _labels(checkpoints: Sequence[str | Path]) -> dict[str, str]:
    """Paths by a label each: the last name, or the whole path where two have the same last name."""
    paths = list(dict.fromkeys(os.fspath(path) for path in checkpoints))
    names = [Path(path).name or path for path in paths]
    return {name if names.count(name) == 1 else path: path for name, path in zip(names, paths, strict=True)}


class Sessions:
    """Which files in the server's folder belong to which visitor, so that they go when the page is closed."""

    def __init__(self, root: Path) -> None:
        self.root, self._files = root.resolve(), defaultdict[str, set[Path]](set)
        self._folders: dict[str, Path] = {}

    def uploaded(self, session: str, given: object) -> Path | None:
        """The path of what was uploaded, noted as the session's; raises UserError for what did not come by an upload."""
        if given is None:
            return None
        path = Path(str(given.get("path", ""))) if isinstance(given, Mapping) else Path(str(given))
        if self.root not in path.resolve().parents:
            raise UserError("what was given is no upload: choose the file again")
        if not path.exists():
            raise UserError(f"{path.name} was removed after a while: choose the file again")
        self._files[session].add(path)
        return path

    def folder(self, session: str) -> Path:
        """The session's own folder, for results."""
        if session not in self._folders:
            self._folders[session] = Path(tempfile.mkdtemp(prefix="session-", dir=self.root))
        return self._folders[session]

    def close(self, session: str) -> None:
        """Removes the session's results, and its uploads but for those that another session uses, too."""
        shutil.rmtree(self._folders.pop(session, self.root / "none"), ignore_errors=True)
        for path in self._files.pop(session, set()).difference(*self._files.values()):
            path.unlink(missing_ok=True)


def build(shelf: Shelf, root: Path, most: int) -> gr.Blocks:
    """The page; `root` is the folder where Gradio keeps files, `most` the number of driving frames that are taken.

    Raises UserError when the first checkpoint cannot be loaded.
    """
    shelf.animator(next(iter(shelf.paths)))
    sessions = Sessions(root)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=SWEEP) as page:
        gr.Markdown(f"# {TITLE}\n{TEXT}")
        with gr.Row():
            with gr.Column():
                source = gr.Image(label="picture", type="filepath", image_mode=None, buttons=[], elem_id="source")
                with gr.Tab("Video or camera"):
                    driving = gr.Video(label="driving video", buttons=[], elem_id="driving")
                with gr.Tab("GIF or other file"):
                    other = gr.File(label="driving file", elem_id="other")
                example = gr.Button("Take the example", size="sm", visible=False, elem_id="example")
            with gr.Column():
                labels = list(shelf.paths)
                checkpoint = gr.Dropdown(labels, value=labels[0], label="checkpoint", elem_id="checkpoint")
                fit = gr.Radio(
                    [(FITS[name], name) for name in get_args(Fit)],
                    value="crop",
                    label="make frames square",
                    elem_id="fit",
                )
                known = controls()
                best = gr.Checkbox(
                    False,
                    label="best first frame",
                    info="measure relative motion from the driving frame that is nearest to the picture's pose",
                    elem_id="best-frame",
                    visible=False,
                )
                button = gr.Button("Animate", variant="primary", elem_id="animate")
        result = gr.Video(label="result", interactive=False, autoplay=True, loop=True, elem_id="result")
        strip = gr.Video(label="how it came about", interactive=False, autoplay=True, loop=True, elem_id="strip")
        notes = gr.Textbox(label="notes", interactive=False, elem_id="notes")

        parts = [part for control in known.values() for part in control.parts]
        for component in (source, driving, other):
            _only_uploads(component)

        def choose(label: str) -> list[Any]:
            with _told():
                animator = shelf.animator(label)
                measured = MEASURED_FROM_A_FRAME in flags(animator.run.config.system)
                there = gr.update(visible=bool(shelf.example(label)))
                return [*for_animator(animator, known), gr.update(visible=measured, value=False), there]

        def show_example(label: str, request: gr.Request) -> list[str]:
            folder = sessions.folder(str(request.session_hash))
            return [str(shutil.copy(path, folder / path.name)) for path in shelf.example(label)]

        def animate(
            given: dict[Any, Any],
            request: gr.Request,
            progress: gr.Progress = gr.Progress(),  # noqa: B008
        ) -> tuple[str, str, str]:
            session = str(request.session_hash)
            with _told():
                animator = shelf.animator(given[checkpoint])
                asked = Asked(
                    *_inputs(*(sessions.uploaded(session, given[one]) for one in (source, driving, other))),
                    _options(animator, known, given),
                    given[fit],
                    given[best] is True and MEASURED_FROM_A_FRAME in flags(animator.run.config.system),
                    most,
                )
                progress((0, None), desc="loading", unit="frames")

                def report(doing: str, done: int, total: int | None) -> None:
                    progress((done, total), desc=doing, unit="frames")

                made = make(animator, asked, sessions.folder(session), secrets.token_hex(4), report)
                said = [f"{made.frames} frames by {animator.run.system.name}, step {animator.step}.", *made.warnings]
                return str(made.result), str(made.strip), "\n".join(said)

        def leave(request: gr.Request) -> None:
            sessions.close(str(request.session_hash))

        updated = [*parts, best, example]
        page.load(choose, checkpoint, updated, show_progress="hidden", api_visibility="private")
        checkpoint.change(choose, checkpoint, updated, show_progress="hidden", api_visibility="private")
        example.click(show_example, checkpoint, [source, driving], api_visibility="private")
        button.click(
            animate,
            {checkpoint, source, driving, other, fit, best, *parts},
            [result, strip, notes],
            api_name="animate",
            preprocess=False,  # Gradio's own reading of pictures knows no limits and has no sentences
            trigger_mode="once",
        )
        page.unload(leave)
    return page


def launch(page: gr.Blocks, host: str, port: int | None, share: bool, megabytes: int) -> None:
    """Starts serving in the background: files of up to `megabytes`, nothing fetched from elsewhere, nothing told to anybody.

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
            pwa=False,
        )
    except OSError as error:
        raise UserError(f"{host}:{port or 'any port'} cannot be listened at: give another --port or --host") from error


@contextmanager
def _told() -> Iterator[None]:
    """Turns a UserError into a message on the page, without a traceback anywhere."""
    try:
        yield
    except UserError as error:
        # Gradio shows messages as HTML, and names in it are strangers'
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
    """The options of the animator's system as text."""
    texts = {
        name: known[name].text([given[part] for part in known[name].parts])
        for name in flags(animator.run.config.system)
    }
    return {name: text for name, text in texts.items() if text is not None}


def _only_uploads(component: Any) -> None:
    """Keeps a visitor from naming an address instead of a file, which Gradio would fetch for them."""
    plain = component.async_move_resource_to_block_cache

    async def local(path: str | Path | None) -> str | None:
        if "://" in str(path):
            raise gr.Error("only uploaded files are taken", print_exception=False)
        return await plain(path)

    component.async_move_resource_to_block_cache = local
