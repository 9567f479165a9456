"""How is the page served, to whom, and until when?"""

from __future__ import annotations

import argparse
import ipaddress
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from maskanim_jax.errors import UserError

DEFAULT_CHECKPOINT = "puppets"
"""The checkpoint that is offered first if none is given; the other bundled ones follow."""

NEEDS_GRADIO = "the demo needs Gradio, which is not installed here: run `pip install 'maskanim_jax[demo]'`"


def workdirs(folder: Path) -> list[str]:
    """The workdirs in `folder`, by name; raises UserError when there is none."""
    try:
        found = [str(path) for path in sorted(folder.iterdir()) if (path / "checkpoints").is_dir()]
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}): give a folder of workdirs") from error
    if not found:
        raise UserError(f"{folder} has no workdir with checkpoints: give the folder that contains the workdirs")
    return found


def bundled_checkpoints() -> list[str]:
    """The checkpoints that come with the package, by name, `DEFAULT_CHECKPOINT` first."""
    from maskanim_jax.checkpoints import bundled

    return sorted(bundled.names(), key=lambda name: (name != DEFAULT_CHECKPOINT, name))


def serve(checkpoints: Sequence[str], root: Path, args: argparse.Namespace) -> None:
    """Builds the page and serves it until the process is stopped. Raises UserError."""
    try:
        from maskanim_jax.web import page as demo_page
        from maskanim_jax.web.checkpoints import ModelCache
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise UserError(NEEDS_GRADIO) from error
    page = demo_page.build(ModelCache(checkpoints), root, args.max_frames)
    try:
        demo_page.launch(page, args.host, args.port, args.share, args.max_upload)
        print(f"open {page.local_url} in a browser; Ctrl-C ends", flush=True)
        if args.share or not _is_local(args.host):
            print(
                "warning: others can open this page, too, and their uploads are processed on this machine",
                file=sys.stderr,
            )
        threading.Event().wait()
    finally:
        page.close(verbose=False)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _end(*_: object) -> None:
    sys.exit(0)  # instead of the signal's default action, so that the folder is removed
