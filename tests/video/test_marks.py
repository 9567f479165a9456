"""Are results marked as generated, and files that were only cropped not?"""

import types
from fractions import Fraction

import av
import numpy as np
import pytest
from clips import clip, save
from PIL import Image

import maskanim_jax.animation.jobs
from maskanim_jax.video.reader import open_frames
from maskanim_jax.video.writer import PROVENANCE_COMMENT, VideoWriter


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.m4v", "out.gif", "out/"])
def test_the_mark_is_in_the_file_and_changes_no_frame(tmp_path, name):
    frames = clip(3)
    plain, marked = f"{tmp_path}/plain-{name}", f"{tmp_path}/{name}"
    for path, comment in ((plain, ""), (marked, PROVENANCE_COMMENT)):
        with VideoWriter(path, Fraction(10), comment=comment) as writer:
            for frame in frames:
                writer.write(frame)
    with open_frames(marked) as one, open_frames(plain) as other:
        np.testing.assert_array_equal(np.stack(list(one)), np.stack(list(other)))
    assert comment_of(marked) == PROVENANCE_COMMENT
    assert comment_of(plain) == ""


def test_every_animation_is_marked_strip_and_all(tmp_path, monkeypatch):
    """`render` is what the command and its CSV come to."""
    video = save(tmp_path / "driving.mp4", clip(3))
    shown = {"fine": np.zeros((16, 16, 3), np.float32)}
    monkeypatch.setattr(maskanim_jax.animation.jobs, "animate", lambda *a, **k: iter([shown] * 3))
    system = types.SimpleNamespace(result="fine", output_names=("fine",), frame_size=16)
    run = types.SimpleNamespace(system=system, variables=None, step=1)
    outputs = (str(tmp_path / "out.mp4"), str(tmp_path / "strip.gif"))
    job = maskanim_jax.animation.jobs.Job(video, video, *outputs)
    maskanim_jax.animation.jobs.render(run, job, None, batch=1, fit="crop")
    assert [comment_of(path) for path in outputs] == [PROVENANCE_COMMENT, PROVENANCE_COMMENT]
    assert comment_of(video) == ""


def comment_of(path):
    """What the file itself says, read by libraries alone."""
    path = str(path)
    if path.endswith("/"):
        return Image.open(f"{path}000000.png").info.get("Comment", "")
    if path.endswith(".gif"):
        return Image.open(path).info.get("comment", b"").decode()
    with av.open(path) as opened:
        return opened.metadata.get("comment", "")
