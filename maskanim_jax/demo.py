"""How is a picture animated in a browser? `python -m maskanim_jax.demo --help` tells; the page is `maskanim_jax.web.page`. See docs/demo.md."""

from __future__ import annotations

import argparse
import ipaddress
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from maskanim_jax.errors import UserError, exit_with_sentence

SHIPPED = "puppets"
"""What is offered when no checkpoint is given."""
NEEDS_GRADIO = "the demo needs Gradio, which is not installed here: run `pip install 'maskanim_jax[demo]'`"


def parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    flags = argparse.ArgumentParser(
        prog="python -m maskanim_jax.demo",
        description="Serves a page in which a picture is animated by a video, on this machine alone unless told otherwise.",
        allow_abbrev=False,
    )
    add = flags.add_argument
    add(
        "--checkpoint",
        action="append",
        default=[],
        metavar="DIR",
        help=f"workdir of a training, or a checkpoint in it; may be given several times (default: {SHIPPED}, which comes with the project)",
    )
    add("--checkpoints", type=Path, metavar="FOLDER", help="offer every workdir in this folder")
    add("--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1: this machine alone)")
    add("--port", type=int, help="port (default: the first free one from 7860)")
    add(
        "--share",
        action="store_true",
        help="also open a public address by Gradio's tunnel; anybody who has it can use the page",
    )
    add(
        "--max_upload",
        type=int,
        default=200,
        metavar="MB",
        help="largest file that is taken, in megabytes (default 200)",
    )
    add("--max_frames", type=int, default=1500, metavar="N", help="most frames of a driving video (default 1500)")
    return flags


def workdirs(folder: Path) -> list[str]:
    """The workdirs in `folder`, by name; raises UserError when there is none."""
    try:
        found = [str(path) for path in sorted(folder.iterdir()) if (path / "checkpoints").is_dir()]
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}): give a folder of workdirs") from error
    if not found:
        raise UserError(f"{folder} holds no workdir with checkpoints: give the folder that the workdirs are in")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The command; raises UserError."""
    args = parser().parse_args(argv)
    for name in ("max_upload", "max_frames"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name}={getattr(args, name)} cannot be: give 1 or more")
    checkpoints = args.checkpoint + (workdirs(args.checkpoints) if args.checkpoints else [])
    signal.signal(signal.SIGTERM, _end)
    with tempfile.TemporaryDirectory(prefix="maskanim-demo-") as root:
        os.environ["GRADIO_TEMP_DIR"] = root  # uploads and results; Gradio asks for it when the page is built
        serve(checkpoints or [SHIPPED], Path(root), args)
    return 0


def serve(checkpoints: Sequence[str], root: Path, args: argparse.Namespace) -> None:
    """Builds the page and serves it until the process is told to end. Raises UserError."""
    try:
        from maskanim_jax.web import page as demo_page
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise UserError(NEEDS_GRADIO) from error
    page = demo_page.build(demo_page.Shelf(checkpoints), root, args.max_frames)
    try:
        demo_page.launch(page, args.host, args.port, args.share, args.max_upload)
        print(f"open {page.local_url} in a browser; Ctrl-C ends", flush=True)
        if args.share or not _is_local(args.host):
            print("warning: others can open this page, too, and what they upload is computed here", file=sys.stderr)
        threading.Event().wait()
    finally:
        page.close(verbose=False)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _end(*_: object) -> None:
    sys.exit(0)  # not the signal's own way, so that the folder is removed


if __name__ == "__main__":
    exit_with_sentence(main)
