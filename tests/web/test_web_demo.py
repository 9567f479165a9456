"""Does the demo animate what is uploaded to it, in a real browser too, and does it keep to itself: local, limited, nothing left behind?"""

import builtins
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from clips import clip, save
from echo_system import ONE, Echo
from PIL import Image
from timed_clips import timed, times

from maskanim_jax.animation.animator import Animator
from maskanim_jax.checkpoints.bundled import names
from maskanim_jax.demo import main, parser
from maskanim_jax.errors import UserError
from maskanim_jax.video.reader import open_frames
from maskanim_jax.web.job import Asked, make
from maskanim_jax.web.serve import workdirs

ROOT = Path(__file__).parents[2]
ECHO = Animator(SimpleNamespace(config=None, system=Echo(), variables=ONE, step=7))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HAS_GRADIO = importlib.util.find_spec("gradio") is not None
needs_gradio = pytest.mark.skipif(not HAS_GRADIO, reason="Gradio is not installed: pip install 'maskanim_jax[demo]'")
PATIENCE = 120  # seconds for the slowest machine; nothing here waits that long on another
FRAMES, RATE, SIZE = 11, Fraction(12), 32


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A picture, a driving video, a file that is no picture and a text that is no video."""
    folder = tmp_path_factory.mktemp("files")
    Image.fromarray(clip(1, 40, 60)[0]).save(folder / "photo.png")
    save(folder / "driving.mp4", clip(FRAMES, 48, 48), RATE)
    (folder / "broken<b>.png").write_bytes((folder / "photo.png").read_bytes()[:90])
    return folder


def asked(files, **fields):
    return Asked(**{"source": files / "photo.png", "driving": files / "driving.mp4", "options": {}} | fields)


def test_two_videos_come_out_at_the_drivings_rate_and_every_frame_is_told(files, tmp_path):
    told = []
    made = make(ECHO, asked(files), tmp_path, "x", lambda *now: told.append(now))
    assert made.frames == FRAMES
    assert told == [("animating", i, FRAMES) for i in range(FRAMES)]
    for path, width in ((made.result, SIZE), (made.strip, 4 * SIZE)):
        with open_frames(path) as frames:
            assert frames.fps == RATE
            shown = list(frames)
        assert len(shown) == FRAMES
        assert shown[0].shape[1] == width


def test_a_recording_of_a_variable_rate_keeps_its_times_in_both_videos(files, tmp_path):
    ticks = [0, 100, 200, 300, 333, 367, 400, 900]  # milliseconds
    recording = timed(tmp_path / "recording.webm", ticks, codec="libvpx", last=100)
    made = make(ECHO, asked(files, driving=recording), tmp_path, "x", lambda *_: None)
    for path in (made.result, made.strip):
        shown, end = times(path)
        assert shown == [Fraction(tick, 1000) for tick in ticks]
        assert end == 1


def test_what_the_system_has_to_say_is_passed_on(files, tmp_path):
    Image.new("RGB", (32, 32), "white").save(tmp_path / "white.png")
    save(tmp_path / "black.mp4", np.zeros((3, 32, 32, 3), np.uint8))
    made = make(ECHO, Asked(tmp_path / "white.png", tmp_path / "black.mp4", {}), tmp_path, "x", print)
    assert made.warnings == ["they differ"]


@pytest.mark.parametrize("find_best_frame", [False, True])
def test_a_video_that_is_too_long_is_refused_by_its_name_alone_and_leaves_nothing(files, tmp_path, find_best_frame):
    with pytest.raises(UserError, match=r"^driving.mp4 has 11 frames, and this page takes 5: .*--max_frames"):
        make(ECHO, asked(files, most=5, find_best_frame=find_best_frame), tmp_path, "x", print)
    assert list(tmp_path.iterdir()) == []


def test_a_length_that_no_file_states_is_found_out_while_reading(files, tmp_path, monkeypatch):
    def unstated(path):
        opened = open_frames(path)
        opened.count = None
        return opened

    monkeypatch.setattr("maskanim_jax.animation.jobs.open_frames", unstated)
    with pytest.raises(UserError, match=r"more frames"):
        make(ECHO, asked(files, most=FRAMES - 1), tmp_path, "x", lambda *_: None)
    assert list(tmp_path.iterdir()) == []
    assert make(ECHO, asked(files, most=FRAMES), tmp_path, "x", lambda *_: None).frames == FRAMES


def test_it_listens_on_this_machine_alone_and_shares_nothing_unless_told():
    args = parser().parse_args([])
    assert args.host == "127.0.0.1"
    assert args.share is False


def test_what_cannot_be_served_is_a_sentence(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="holds no workdir"):
        workdirs(tmp_path)
    with pytest.raises(UserError, match=r"cannot be read .*No such file"):
        main([f"--checkpoints={tmp_path / 'none'}"])
    with pytest.raises(UserError, match="--max_frames=0"):
        main(["--max_frames=0"])
    plain = builtins.__import__
    monkeypatch.setattr("signal.signal", lambda *_: None)  # what the command sets is not for this process
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))

    def without(name, *rest, **more):
        if name.split(".")[0] == "gradio":
            raise ModuleNotFoundError("No module named 'gradio'", name="gradio")
        return plain(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "maskanim_jax.web.page", raising=False)
    monkeypatch.delattr("maskanim_jax.web.page", raising=False)
    with pytest.raises(UserError, match=r"pip install 'maskanim_jax\[demo\]'"):
        main(["--checkpoint=run"])


WATCH = """import os, sys
def seen(event, given):
    if event == "socket.connect" and isinstance(given[1], tuple) and given[1][0] not in ("127.0.0.1", "localhost", "::1"):
        open(os.environ["WATCHED"], "a").write(f"connects to {given[1]}\\n")
    if event == "socket.getaddrinfo" and given[0] not in ("127.0.0.1", "localhost", "::1", None, b"127.0.0.1"):
        open(os.environ["WATCHED"], "a").write(f"asks for {given[0]}\\n")
sys.addaudithook(seen)
"""


class Server:
    """`python -m maskanim_jax.demo` with two checkpoints, its temporary files in a folder of their own."""

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
            [sys.executable, "-m", "maskanim_jax.demo", f"--checkpoint={masks}", f"--checkpoint={keypoints}", *flags],
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


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not HAS_GRADIO:
        pytest.skip("Gradio is not installed: pip install 'maskanim_jax[demo]'")
    running = Server(
        tmp_path_factory.mktemp("server"),
        "--max_upload=1",
        "--max_frames=100",
        *(f"--checkpoint={name}" for name in names()),
    )
    yield running
    running.end()


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    from gradio_client import Client

    return Client(server.url, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))


def parameters(client, **given):
    """All parameters of the call, in whatever order Gradio has them: those of `given` by label, the others as the page has them."""
    described = client.view_api(return_format="dict", print_info=False)["named_endpoints"]["/animate"]["parameters"]
    labels = {each["label"]: each for each in described}
    assert set(given) <= set(labels), labels.keys()
    defaults = {"picture": None, "driving video": None, "driving file": None}
    return {
        each["parameter_name"]: given.get(label, defaults.get(label, each.get("parameter_default")))
        for label, each in labels.items()
    }


def upload(path):
    from gradio_client import handle_file

    return handle_file(str(path))


@needs_gradio
@pytest.mark.parametrize("label", ["masks", "keypoints"])
def test_each_checkpoint_animates_what_is_uploaded(client, files, label):
    given = {"picture": upload(files / "photo.png"), "driving file": upload(files / "driving.mp4"), "checkpoint": label}
    result, strip, notes = client.predict(api_name="/animate", **parameters(client, **given))
    assert notes.startswith(f"{FRAMES} frames")
    widths = []
    for shown in (result, strip):
        with open_frames(shown["video"] if isinstance(shown, dict) else shown) as frames:
            assert (frames.count, frames.fps) == (FRAMES, RATE)
            widths.append(next(iter(frames)).shape[1])
    assert widths[0] == SIZE
    assert widths[1] >= 5 * SIZE


@needs_gradio
def test_bad_uploads_are_answered_by_a_sentence_without_tags_paths_or_traceback(client, server, files):
    driver = upload(files / "driving.mp4")
    cases = {
        "is no whole image": {"picture": upload(files / "broken<b>.png"), "driving file": driver},
        "there is no picture yet": {"driving file": driver},
        "there is no driving video yet": {"picture": upload(files / "photo.png")},
        "no such checkpoint": {"picture": upload(files / "photo.png"), "driving file": driver, "checkpoint": "/etc"},
        "threshold=900": {"picture": upload(files / "photo.png"), "driving file": driver, "threshold": 900},
    }
    for words, given in cases.items():
        with pytest.raises(Exception, match=words) as caught:
            client.predict(api_name="/animate", **parameters(client, **{"checkpoint": "masks"} | given))
        assert str(server.temporary) not in str(caught.value)
        assert "<b>" not in str(caught.value)
    assert "Traceback" not in server.errors.read_text()


@needs_gradio
@pytest.mark.parametrize("path", ["http://127.0.0.1:1/a.png", "/etc/hostname"])
def test_only_uploads_are_read_no_addresses_and_no_files_of_the_server(client, server, path):
    given = parameters(client, checkpoint="masks")
    given[next(iter(given))] = {"path": path, "meta": {"_type": "gradio.FileData"}}  # the picture
    event = server.post("call/animate", {"data": list(given.values())})["event_id"]
    assert "event: error" in server.events(event)
    assert "hostname" not in server.files()


@needs_gradio
def test_a_file_above_the_limit_is_not_taken(server):
    before = server.files()
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="big.png"\r\n\r\n'
        + bytes(1_200_000)
        + b"\r\n--x--\r\n"
    )
    request = urllib.request.Request(f"{server.url}gradio_api/upload", body, method="POST")
    request.add_header("Content-Type", "multipart/form-data; boundary=x")
    with pytest.raises((urllib.error.HTTPError, ConnectionError)) as caught:
        urllib.request.urlopen(request, timeout=PATIENCE)
    assert getattr(caught.value, "code", 413) == 413
    assert server.files() == before


@needs_gradio
def test_no_other_machine_can_reach_it(server):
    if not Path("/proc/net/tcp").exists():
        pytest.skip("this system does not list its sockets in /proc/net/tcp")
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {line[1] for line in lines if line[3] == "0A"}
    assert {at for at in listening if at.endswith(f":{server.port:04X}")} == {f"0100007F:{server.port:04X}"}
    with pytest.raises(OSError), socket.create_connection(("::1", server.port), timeout=5):
        pass


LOOK = """() => [...document.querySelectorAll("#result video, #strip video")].map((video) => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const pen = canvas.getContext("2d");
  if (!canvas.width) return {ready: video.readyState};
  pen.drawImage(video, 0, 0);
  const values = pen.getImageData(0, 0, canvas.width, canvas.height).data;
  return {ready: video.readyState, width: canvas.width, seconds: video.duration, spread: Math.max(...values.filter((v, i) => i % 4 < 3)) -
    Math.min(...values.filter((v, i) => i % 4 < 3)), error: video.error && video.error.message};
})"""


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium with a camera that shows a test picture."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    driver = pytest.importorskip("playwright.sync_api", reason="Playwright, which drives the browser, is not installed")
    with driver.sync_playwright() as started:
        opened = started.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],
        )
        yield opened
        opened.close()


@pytest.fixture
def page(server, browser):
    """The page in the browser, with the addresses it asked for in `page.asked`."""
    context = browser.new_context(viewport={"width": 1300, "height": 1600}, permissions=["camera"])
    context.set_default_timeout(PATIENCE * 1000)
    opened = context.new_page()
    opened.asked = []
    opened.on("request", lambda request: opened.asked.append(request.url))
    opened.goto(server.url)
    opened.locator("#option-threshold").wait_for()
    yield opened
    context.close()


def animated(page):
    """Clicks, waits until both videos have a frame, and looks at them."""
    page.locator("#animate").click()
    page.wait_for_function(
        "() => [...document.querySelectorAll('#result video, #strip video')].filter(v => v.readyState > 1).length == 2"
    )
    return page.evaluate(LOOK)


def within(seconds, true):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.2)
    return true()


@needs_gradio
def test_in_a_browser_a_picture_is_uploaded_animated_and_seen_and_goes_with_the_page(page, server, files):
    before = server.files()
    page.locator("#source input[type=file]").set_input_files(files / "photo.png")
    page.locator("#source img").wait_for()
    page.locator("#driving input[type=file]").set_input_files(files / "driving.mp4")
    page.locator("#driving video").wait_for()
    result, strip = animated(page)
    assert (result["error"], strip["error"]) == (None, None)
    assert result["width"] == SIZE
    assert strip["width"] >= 5 * SIZE
    assert result["seconds"] == pytest.approx(FRAMES / RATE, abs=0.1)
    assert strip["spread"] > 50  # the picture and its captions are in it
    assert page.locator("#notes textarea").input_value().startswith(f"{FRAMES} frames by perturbed_masks")
    hosts = {address.split("/")[2].split(":")[0] for address in page.asked if address.startswith(("http", "ws"))}
    assert hosts == {"127.0.0.1"}
    assert len(server.files()) > len(before)
    page.close()
    assert within(60, lambda: server.files() == before), set(server.files()) - set(before)


@needs_gradio
def test_in_a_browser_only_the_options_of_the_chosen_checkpoint_are_there(page):
    assert not page.locator("#option-motion").is_visible()
    assert page.locator("#option-threshold-median").is_visible()
    assert page.locator("#option-mask_scale input[type=range]").is_visible()
    assert page.locator("#option-smooth input[type=range]").is_visible()
    page.locator("#checkpoint input").click()
    page.get_by_role("option", name="keypoints").click()
    page.locator("#option-motion").wait_for()
    assert page.locator("#option-adapt_scale").is_visible()
    assert page.locator("#best-frame").is_visible()
    assert not page.locator("#option-threshold").is_visible()


@needs_gradio
@pytest.mark.skipif("puppets" not in names(), reason="no checkpoint comes with this copy")
def test_in_a_browser_the_example_of_the_shipped_checkpoint_is_one_click_away(page):
    assert not page.locator("#example").is_visible()
    page.locator("#checkpoint input").click()
    page.get_by_role("option", name="puppets").click()
    page.locator("#example").click()
    page.wait_for_function("() => document.querySelector('#source img')?.naturalWidth > 0")
    page.wait_for_function("() => document.querySelector('#driving video')?.videoWidth > 0")


@needs_gradio
def test_in_a_browser_a_mistake_is_a_sentence_and_the_camera_drives(page, files):
    page.locator("#source input[type=file]").set_input_files(files / "photo.png")
    page.locator("#source img").wait_for()
    page.locator("#animate").click()
    page.get_by_text("there is no driving video yet").wait_for()
    page.locator("#driving button[aria-label*=ebcam], #driving button[aria-label*=amera]").first.click()
    page.locator("#driving").get_by_text("Click to Access Webcam").click()
    record = page.locator("#driving button[aria-label='start recording']")
    record.click()
    page.wait_for_timeout(1500)
    record.click()  # the same button ends it
    page.locator("#driving video[src*=gradio_api]").wait_for()  # the recording was sent
    result, _ = animated(page)
    assert result["width"] == SIZE
    assert result["seconds"] > 0.7  # not thousands of frames a second, as recorders put in the header


@needs_gradio
def test_it_has_asked_no_other_machine_for_anything(server):
    assert not server.watched.exists(), server.watched.read_text()


@needs_gradio
def test_when_it_ends_nothing_is_left(server):
    assert server.files() or list(server.temporary.iterdir())
    assert server.end() == 0
    assert list(server.temporary.iterdir()) == []
