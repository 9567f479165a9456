"""The demo's command in a process of its own, watched, for the tests of its page."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import urllib.request
from fractions import Fraction
from pathlib import Path

import pytest
from clips import clip, save
from PIL import Image

ROOT = Path(__file__).parents[2]
HAS_GRADIO = importlib.util.find_spec("gradio") is not None
needs_gradio = pytest.mark.skipif(not HAS_GRADIO, reason="Gradio is not installed: pip install 'maskanim_jax[demo]'")
PATIENCE = 120  # seconds for the slowest machine; nothing here waits that long on another
FRAMES, RATE, SIZE = 11, Fraction(12), 32


def write_files(folder):
    """A picture, a driving video, and a file that is no picture."""
    Image.fromarray(clip(1, 40, 60)[0]).save(folder / "photo.png")
    save(folder / "driving.mp4", clip(FRAMES, 48, 48), RATE)
    (folder / "broken<b>.png").write_bytes((folder / "photo.png").read_bytes()[:90])
    return folder


WATCH = """import os, sys
def seen(event, given):
    if event == "socket.connect" and isinstance(given[1], tuple) and given[1][0] not in ("127.0.0.1", "localhost", "::1"):
        open(os.environ["WATCHED"], "a").write(f"connects to {given[1]}\\n")
    if event == "socket.getaddrinfo" and given[0] not in ("127.0.0.1", "localhost", "::1", None, b"127.0.0.1"):
        open(os.environ["WATCHED"], "a").write(f"asks for {given[0]}\\n")
sys.addaudithook(seen)
"""


class Server:
    """`python -m maskanim_jax.demo` with two untrained checkpoints, after those of `flags`; its temporary files lie in a folder of their own."""

    def __init__(self, folder, *flags):
        from untrained_run import two_systems

        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        masks, keypoints = two_systems(folder)
        self.errors, self.watched = folder / "errors.txt", folder / "watched.txt"
        (folder / "watch").mkdir()
        (folder / "watch/sitecustomize.py").write_text(WATCH)
        watch = {"PYTHONPATH": str(folder / "watch"), "WATCHED": str(self.watched)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "maskanim_jax.demo", *flags, f"--checkpoint={masks}", f"--checkpoint={keypoints}"],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(self.temporary), **watch},
            stdout=subprocess.PIPE,
            stderr=self.errors.open("w"),
            text=True,
        )
        line = self.process.stdout.readline()
        assert line.startswith("open http://127.0.0.1:"), self.errors.read_text()[-3000:]
        self.url = re.search(r"http://\S+", line)[0]
        self.port = int(re.search(r":(\d+)", self.url.removeprefix("http:"))[1])

    def files(self):
        return sorted(path.name for path in self.temporary.rglob("*") if path.is_file())

    def post(self, path, content):
        request = urllib.request.Request(f"{self.url}gradio_api/{path}", json.dumps(content).encode(), method="POST")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read())

    def events(self, event):
        """What the server says of a call, as one text."""
        with urllib.request.urlopen(f"{self.url}gradio_api/call/animate/{event}", timeout=PATIENCE) as answer:
            return answer.read().decode()

    def end(self):
        self.process.terminate()
        return self.process.wait(PATIENCE)
