"""Does the demo work in a real browser: first result with one click, uploads, options, examples, camera, and a phone's width?"""

import time

import av
import pytest
from web_demo_server import FRAMES, HAS_GRADIO, PATIENCE, RATE, SIZE, Server, needs_gradio, write_files

from maskanim_jax.checkpoints.bundled import names

pytestmark = [
    needs_gradio,
    pytest.mark.skipif("puppets" not in names(), reason="no checkpoint comes with this copy"),
]
VISITORS = ("photo", "driving", "example-", "animation-", "strip-")
"""How the names of files begin that a visitor uploaded or got."""
LOOK = """() => [...document.querySelectorAll("#result video, #strip video")].map((video) => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const pen = canvas.getContext("2d");
  if (!canvas.width) return {ready: video.readyState};
  pen.drawImage(video, 0, 0);
  const values = pen.getImageData(0, 0, canvas.width, canvas.height).data.filter((v, i) => i % 4 < 3);
  return {ready: video.readyState, width: canvas.width, seconds: video.duration, error: video.error && video.error.message,
          spread: values.reduce((a, b) => Math.max(a, b)) - values.reduce((a, b) => Math.min(a, b))};
})"""
FILLED = "() => document.querySelector('#source img')?.naturalWidth > 0 && document.querySelector('#driving video')?.videoWidth > 0"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory):
    if not HAS_GRADIO:
        pytest.skip("Gradio is not installed: pip install 'maskanim_jax[demo]'")
    running = Server(tmp_path_factory.mktemp("server"), "--checkpoint=puppets")
    yield running
    running.end()


@pytest.fixture
def page(server, browser):
    """The page in the browser with its example, and the addresses it asked for in `page.asked`."""
    context = browser.new_context(viewport={"width": 1300, "height": 1600}, permissions=["camera"])
    context.set_default_timeout(PATIENCE * 1000)
    opened = context.new_page()
    opened.asked = []
    opened.on("request", lambda request: opened.asked.append(request.url))
    opened.goto(server.url)
    opened.wait_for_function(FILLED)
    yield opened
    context.close()


def animated(page):
    """Clicks, waits until both videos have a frame, and looks at them."""
    page.locator("#animate").click()
    page.wait_for_function(
        "() => [...document.querySelectorAll('#result video, #strip video')].filter(v => v.readyState > 1).length == 2"
    )
    return page.evaluate(LOOK)


def cleared(page, place):
    """The picture or the video there, emptied."""
    page.locator(f"{place} button[aria-label='Clear'], {place} button[aria-label='Remove Image']").first.click()
    return page.locator(place)


def uploaded(page, files):
    cleared(page, "#source").locator("input[type=file]").set_input_files(files / "photo.png")
    page.locator("#source img").wait_for()
    cleared(page, "#driving").locator("input[type=file]").set_input_files(files / "driving.mp4")
    page.locator("#driving video").wait_for()


def choose(page, checkpoint):
    page.locator("#checkpoint input").click()
    page.get_by_role("option", name=checkpoint).click()


def visitors(server):
    return [name for name in server.files() if name.startswith(VISITORS)]


def within(seconds, true):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.2)
    return true()


@pytest.mark.browser
@pytest.mark.subprocess
def test_one_click_animates_the_example(page):
    result, strip = animated(page)
    assert (result["error"], strip["error"]) == (None, None)
    assert result["seconds"] > 0.5
    assert result["spread"] > 50
    boxes = [page.locator(place).bounding_box() for place in ("#source", "#driving", "#result")]
    assert boxes[0]["x"] < boxes[1]["x"] < boxes[2]["x"]  # beside each other
    assert max(box["y"] for box in boxes) - min(box["y"] for box in boxes) < 10


@pytest.mark.browser
@pytest.mark.subprocess
def test_what_is_uploaded_is_animated_and_goes_with_the_page(page, server, files):
    uploaded(page, files)
    choose(page, "masks")
    page.wait_for_function("() => !document.querySelector('#examples')")  # this one has none
    result, strip = animated(page)
    assert (result["error"], strip["error"]) == (None, None)
    assert result["width"] == SIZE
    assert strip["width"] >= 5 * SIZE
    assert result["seconds"] == pytest.approx(FRAMES / RATE, abs=0.1)
    assert strip["spread"] > 50  # the picture and its captions are in it
    assert page.locator("#notes textarea").input_value().startswith(f"{FRAMES} frames by perturbed_masks")
    hosts = {address.split("/")[2].split(":")[0] for address in page.asked if address.startswith(("http", "ws"))}
    assert hosts == {"127.0.0.1"}
    assert visitors(server)
    page.close()
    assert within(60, lambda: not visitors(server)), visitors(server)


@pytest.mark.browser
@pytest.mark.subprocess
def test_only_the_options_of_the_chosen_checkpoint_are_there_and_they_are_folded_away(page):
    assert not page.locator("#option-threshold").is_visible()
    page.locator("#expert").get_by_text("Expert settings").click()
    page.locator("#option-threshold-median").wait_for()
    assert page.locator("#option-mask_scale input[type=range]").is_visible()
    assert page.locator("#option-smooth input[type=range]").is_visible()
    assert not page.locator("#option-motion").is_visible()
    choose(page, "keypoints")
    page.locator("#option-motion").wait_for()
    assert page.locator("#option-adapt_scale").is_visible()
    assert page.locator("#best-frame").is_visible()
    assert not page.locator("#option-threshold").is_visible()


@pytest.mark.browser
@pytest.mark.subprocess
def test_a_click_on_another_example_takes_it(page):
    pictures = page.locator("#examples button.thumbnail-item")
    pictures.nth(1).wait_for()
    before = page.locator("#source img").get_attribute("src")
    pictures.nth(1).click()
    page.wait_for_function("before => document.querySelector('#source img')?.src != before", arg=before)
    page.wait_for_function("() => /driving-2/.test(document.querySelector('#driving video')?.src)")


@pytest.mark.browser
@pytest.mark.subprocess
def test_it_fits_a_phone_with_the_button_before_the_result(page):
    page.set_viewport_size({"width": 400, "height": 900})
    page.wait_for_timeout(300)
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    heights = [page.locator(place).bounding_box()["y"] for place in ("#source", "#driving", "#animate", "#result")]
    assert heights == sorted(heights)


def recorded_seconds(path):
    """From the first frame's time to the last one's, and one frame more."""
    with av.open(str(path)) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    return (times[-1] - times[0]) * len(times) / (len(times) - 1)


@pytest.mark.browser
@pytest.mark.subprocess
def test_a_mistake_is_a_sentence_and_a_camera_recording_becomes_a_result_of_the_same_length(page, server):
    driving = cleared(page, "#driving")
    page.locator("#driving video").wait_for(state="detached")
    page.locator("#animate").click()
    page.get_by_text("there is no driving video yet").wait_for()
    driving.locator("button[aria-label*=amera]").first.click()
    driving.get_by_text("Click to Access Webcam").click()
    # The camera shows something.
    page.wait_for_function("() => document.querySelector('#driving video')?.readyState > 1")
    page.wait_for_timeout(500)
    record = driving.locator("button[aria-label='start recording']")
    record.click()
    page.wait_for_timeout(3000)
    record.click()  # the same button ends it
    page.locator("#driving video[src*=gradio_api]").wait_for()  # the recording was sent
    page.wait_for_function("() => document.querySelector('#driving video')?.readyState > 1")
    recording = max(server.temporary.rglob("*.webm"), key=lambda path: path.stat().st_mtime)
    seconds = recorded_seconds(recording)
    assert seconds > 0.3
    result, _ = animated(page)
    assert result["seconds"] == pytest.approx(seconds, abs=0.15)


@pytest.mark.browser
@pytest.mark.subprocess
def test_it_has_asked_no_other_machine_for_anything(server):
    assert not server.watched.exists(), server.watched.read_text()
