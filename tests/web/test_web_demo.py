"""Does the demo animate uploads, and is it safe: local, limited, without leftovers?"""

import builtins
import socket
import sys
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
from web_demo_server import FRAMES, HAS_GRADIO, PATIENCE, RATE, SIZE, Server, needs_gradio, write_files

from maskanim_jax.animation.animator import Animator
from maskanim_jax.checkpoints.bundled import names
from maskanim_jax.demo import main, parser
from maskanim_jax.errors import UserError
from maskanim_jax.video.reader import open_frames
from maskanim_jax.web.checkpoints import ModelCache, preview
from maskanim_jax.web.job import AnimationRequest, make
from maskanim_jax.web.serve import bundled_checkpoints, workdirs
from maskanim_jax.web.sessions import Sessions
from maskanim_jax.workdir.results import InputPair, inputs_of

ECHO = Animator(SimpleNamespace(config=None, system=Echo(), variables=ONE, step=7))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("files"))


def asked(files, **fields):
    return AnimationRequest(**{"source": files / "photo.png", "driving": files / "driving.mp4", "options": {}} | fields)


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
    made = make(ECHO, AnimationRequest(tmp_path / "white.png", tmp_path / "black.mp4", {}), tmp_path, "x", print)
    assert made.warnings == ["they differ"]


@pytest.mark.parametrize("find_best_frame", [False, True])
def test_a_video_that_is_too_long_is_refused_by_its_name_alone_and_leaves_nothing(files, tmp_path, find_best_frame):
    with pytest.raises(UserError, match=r"^driving.mp4 has 11 frames, but this page accepts 5: .*--max_frames"):
        make(ECHO, asked(files, max_frames=5, find_best_frame=find_best_frame), tmp_path, "x", print)
    assert list(tmp_path.iterdir()) == []


def test_a_length_that_no_file_states_is_found_out_while_reading(files, tmp_path, monkeypatch):
    def unstated(path):
        opened = open_frames(path)
        opened.count = None
        return opened

    monkeypatch.setattr("maskanim_jax.animation.jobs.open_frames", unstated)
    with pytest.raises(UserError, match=r"more frames"):
        make(ECHO, asked(files, max_frames=FRAMES - 1), tmp_path, "x", lambda *_: None)
    assert list(tmp_path.iterdir()) == []
    assert make(ECHO, asked(files, max_frames=FRAMES), tmp_path, "x", lambda *_: None).frames == FRAMES


def test_a_bundled_checkpoint_has_examples_and_a_run_offers_what_it_animated(tmp_path):
    run = tmp_path / "run"
    (run / "animation/inputs").mkdir(parents=True)
    shelf = ModelCache([*names(), run, run / "checkpoints/7", tmp_path / "none"])
    assert shelf.examples("run") == []
    pair = inputs_of(run / "animation", "a-by-b")
    Image.fromarray(clip(1, 20, 30)[0]).save(pair.source)
    assert shelf.examples("run") == []  # half a pair is none
    save(pair.driving, clip(3, 16, 16))
    assert shelf.examples("run") == shelf.examples("7") == [pair]
    assert preview(pair, 16).shape == (16, 32, 3)
    assert shelf.examples("none") == shelf.examples("no label") == []
    for name in names():
        assert len(shelf.examples(name)) >= 1
        assert all(path.is_file() for one in shelf.examples(name) for path in one)


def test_examples_are_copied_and_never_replace_a_visitors_own_file(tmp_path):
    sessions = Sessions(tmp_path)
    (tmp_path / "source.png").write_bytes(b"one")
    (tmp_path / "driving.mp4").write_bytes(b"two")
    copied = sessions.copy_example("me", InputPair(tmp_path / "source.png", tmp_path / "driving.mp4"))
    assert [path.read_bytes() for path in copied] == [b"one", b"two"]
    assert sessions.may_replace(None)
    assert sessions.may_replace({"path": str(copied.source)})
    assert not sessions.may_replace({"path": str(tmp_path / "source.png")})
    sessions.close("me")
    assert not copied.source.exists()
    assert (tmp_path / "source.png").exists()


def test_without_a_checkpoint_all_bundled_ones_are_offered_puppets_first(monkeypatch):
    monkeypatch.setattr("maskanim_jax.checkpoints.bundled.names", lambda: ["faces", "puppets", "zebras"])
    assert bundled_checkpoints() == ["puppets", "faces", "zebras"]


def test_it_listens_on_this_machine_alone_and_shares_nothing_unless_told():
    args = parser().parse_args([])
    assert args.host == "127.0.0.1"
    assert args.share is False


def test_what_cannot_be_served_is_a_sentence(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="has no workdir"):
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


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not HAS_GRADIO:
        pytest.skip("Gradio is not installed: pip install 'maskanim_jax[demo]'")
    running = Server(tmp_path_factory.mktemp("server"), "--max_upload=1", "--max_frames=100")
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


@pytest.mark.subprocess
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


@pytest.mark.subprocess
@needs_gradio
def test_bad_uploads_are_answered_by_a_sentence_without_tags_paths_or_traceback(client, server, files):
    driver = upload(files / "driving.mp4")
    cases = {
        "is not a complete image": {"picture": upload(files / "broken<b>.png"), "driving file": driver},
        "there is no picture yet": {"driving file": driver},
        "there is no driving video yet": {"picture": upload(files / "photo.png")},
        "checkpoint does not exist": {
            "picture": upload(files / "photo.png"),
            "driving file": driver,
            "checkpoint": "/etc",
        },
        "threshold=900": {"picture": upload(files / "photo.png"), "driving file": driver, "threshold": 900},
    }
    for words, given in cases.items():
        with pytest.raises(Exception, match=words) as caught:
            client.predict(api_name="/animate", **parameters(client, **{"checkpoint": "masks"} | given))
        assert str(server.temporary) not in str(caught.value)
        assert "<b>" not in str(caught.value)
    assert "Traceback" not in server.errors.read_text()


@pytest.mark.subprocess
@needs_gradio
@pytest.mark.parametrize("path", ["http://127.0.0.1:1/a.png", "/etc/hostname"])
def test_only_uploads_are_read_no_addresses_and_no_files_of_the_server(client, server, path):
    given = parameters(client, checkpoint="masks")
    given[next(iter(given))] = {"path": path, "meta": {"_type": "gradio.FileData"}}  # the picture
    event = server.post("call/animate", {"data": list(given.values())})["event_id"]
    assert "event: error" in server.events(event)
    assert "hostname" not in server.files()


@pytest.mark.subprocess
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


@pytest.mark.subprocess
@needs_gradio
def test_no_other_machine_can_reach_it(server):
    if not Path("/proc/net/tcp").exists():
        pytest.skip("this system does not list its sockets in /proc/net/tcp")
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {line[1] for line in lines if line[3] == "0A"}
    assert {at for at in listening if at.endswith(f":{server.port:04X}")} == {f"0100007F:{server.port:04X}"}
    with pytest.raises(OSError), socket.create_connection(("::1", server.port), timeout=5):
        pass


@pytest.mark.subprocess
@needs_gradio
def test_it_has_asked_no_other_machine_for_anything(server):
    assert not server.watched.exists(), server.watched.read_text()


@pytest.mark.subprocess
@needs_gradio
def test_when_it_ends_nothing_is_left(server):
    assert server.files() or list(server.temporary.iterdir())
    assert server.end() == 0
    assert list(server.temporary.iterdir()) == []
