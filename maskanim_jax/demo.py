"""How is a picture animated in a browser?

See `python -m maskanim_jax.demo --help` and docs/demo.md; `maskanim_jax.web.page` builds the page.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

from maskanim_jax.errors import check_at_least, run_main
from maskanim_jax.utils.paths import text_or_bucket, user_path
from maskanim_jax.web.serve import DEFAULT_CHECKPOINT, _end, bundled_checkpoints, serve, workdirs


def parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    flags = argparse.ArgumentParser(
        prog="python -m maskanim_jax.demo",
        description="Serves a page that animates a picture with a video, by default only for this machine.",
        allow_abbrev=False,
    )
    add = flags.add_argument
    add(
        "--checkpoint",
        action="append",
        type=text_or_bucket,
        default=[],
        metavar="DIR",
        help="workdir of a run, a checkpoint in it, or the name of a bundled one; may be repeated "
        f"(default: all bundled ones, {DEFAULT_CHECKPOINT} first)",
    )
    add("--checkpoints", type=user_path, metavar="FOLDER", help="offer every workdir in this folder")
    add("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine only)")
    add("--port", type=int, help="port (default: the first free one from 7860)")
    add(
        "--share",
        action="store_true",
        help="also open a public address through Gradio's tunnel; anyone with the address can use the page",
    )
    add(
        "--max_upload",
        type=int,
        default=200,
        metavar="MB",
        help="largest accepted file in megabytes (default 200)",
    )
    add("--max_frames", type=int, default=1500, metavar="N", help="maximum frames of a driving video (default 1500)")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """The command; raises UserError."""
    args = parser().parse_args(argv)
    for name in ("max_upload", "max_frames"):
        check_at_least(f"--{name}", getattr(args, name))
    checkpoints = args.checkpoint + (workdirs(args.checkpoints) if args.checkpoints else [])
    signal.signal(signal.SIGTERM, _end)
    with tempfile.TemporaryDirectory(prefix="maskanim-demo-") as root:
        os.environ["GRADIO_TEMP_DIR"] = root  # for uploads and results; Gradio reads it when the page is built
        serve(checkpoints or bundled_checkpoints(), Path(root), args)
    return 0


if __name__ == "__main__":
    run_main(main)
