"""How does a browser show a run's page: does it fit, do the videos play together, can a strip be enlarged?"""

import json
from fractions import Fraction

import pytest
from clips import clip, save
from PIL import Image

from maskanim_jax.reports.run_page import write_report
from maskanim_jax.workdir.logs import MetricWriter
from maskanim_jax.workdir.results import inputs_of

WAIT_MS = 60_000


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page of a run with two animations, their strips, a reconstruction, curves and long names."""
    workdir = tmp_path_factory.mktemp("report") / ("run-" + "x" * 80)
    with MetricWriter(workdir) as log:
        for step in (1, 2, 3):
            log.scalars(step, {"loss": 1 / step, "gradient_norm_of_something_with_a_long_name": 1e-9 * step})
            log.pictures(step, {"held_out": clip(1, 64, 512)[0]})
    frames = clip(20, 64, 64)
    (workdir / "animation/inputs").mkdir(parents=True)
    (workdir / "reconstruction").mkdir()
    for name in ("a-by-b", "c-by-" + "d" * 60):
        source, driving = inputs_of(workdir / "animation", name)
        Image.fromarray(frames[0]).save(source)
        save(driving, frames, Fraction(10))
        save(workdir / f"animation/{name}.mp4", frames, Fraction(10))
        save(workdir / f"animation/{name}-strip.mp4", clip(20, 64, 512), Fraction(10))
    save(workdir / "reconstruction/a.mp4", clip(20, 64, 512), Fraction(10))
    figures = {"l1": 0.05, "l1_copy_source": 0.1, "ratio": 0.5, "frames": 19, "data_fingerprint": "f" * 64}
    clips = [{"name": "n" * 70, "frames": 19, "l1": 0.05, "l1_copy_source": 0.1}]
    (workdir / "reconstruction.json").write_text(json.dumps(figures | {"clips": clips}))
    (workdir / "before.json").write_text(json.dumps(figures | {"l1": 0.2, "label": "untrained"}))
    (workdir / "config.json").write_text(json.dumps({"name": "y" * 90}))
    return write_report(workdir).resolve().as_uri()


@pytest.fixture(params=[1300, 400])
def page(request, browser, address):
    context = browser.new_context(viewport={"width": request.param, "height": 900})
    context.set_default_timeout(WAIT_MS)
    opened = context.new_page()
    opened.mistakes = []
    opened.on("pageerror", lambda error: opened.mistakes.append(str(error)))
    opened.goto(address)
    yield opened
    context.close()


@pytest.mark.browser
def test_it_fits_the_window_also_with_everything_unfolded(page):
    page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    for width in page.evaluate("() => [...document.querySelectorAll('.player video')].map((v) => v.clientWidth)"):
        assert width >= 150
    for width in page.evaluate("() => [...document.querySelectorAll('#strips > .wide')].map((v) => v.clientWidth)"):
        assert width >= 0.85 * page.viewport_size["width"]
    assert page.mistakes == []


@pytest.mark.browser
def test_the_videos_of_an_animation_play_together_begin_again_and_stop_with_one_button(page):
    times = "() => [...document.querySelectorAll('#animations .player')[0].querySelectorAll('video')].map((v) => v.currentTime)"
    page.wait_for_function(
        "() => [...document.querySelectorAll('#animations .player')[0].querySelectorAll('video')].every((v) => v.currentTime > 0.3)"
    )
    driver, result = page.evaluate(times)
    assert abs(driver - result) < 0.15
    page.evaluate(
        "() => { window.again = 0; document.querySelector('.answer video').onended = () => { window.again += 1; }; }"
    )
    page.wait_for_function("() => window.again > 0 && document.querySelector('.answer video').currentTime > 0.1")
    page.locator("[data-play]").first.click()
    page.wait_for_function("() => [...document.querySelectorAll('video')].every((v) => v.paused)")
    before = page.evaluate(times)
    page.wait_for_timeout(300)
    assert page.evaluate(times) == before
    assert {button.inner_text() for button in page.locator("[data-play]").all()} == {"Play"}
    page.locator("[data-play]").last.click()
    page.wait_for_function("() => [...document.querySelectorAll('video')].some((v) => !v.paused)")


@pytest.mark.browser
def test_a_click_enlarges_a_strip_and_another_one_closes_it(page):
    strip = page.locator("#strips .wide video").first
    strip.scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('#strips .wide video').videoWidth > 0")
    shown = strip.bounding_box()["width"]
    strip.click()
    large = page.locator("dialog video")
    large.wait_for()
    assert large.bounding_box()["width"] > 1.5 * shown
    page.locator("dialog").click(position={"x": 30, "y": 30})
    large.wait_for(state="detached")


@pytest.mark.browser
def test_the_first_screen_shows_how_it_went_and_an_animation(page):
    assert page.locator(".headline").inner_text().startswith("Better than copying the source")
    assert page.locator(".player").first.bounding_box()["y"] < 900
