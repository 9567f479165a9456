"""Is every step logged exactly once, even if the run was killed and resumed?"""

import json
import math

import numpy as np
import pytest
from PIL import Image

from maskanim_jax.errors import UserError
from maskanim_jax.workdir.logs import MetricWriter, read_log


def run(workdir, start, stop):
    with MetricWriter(workdir, start) as log:
        for step in range(start + 1, stop + 1):
            log.scalars(step, {"loss": step / 2, "lr": 1e-4})


def test_a_resumed_run_has_each_step_once_and_in_order(tmp_path):
    run(tmp_path, 0, 10)
    run(tmp_path, 6, 12)  # killed at 10, the last checkpoint was at 6
    records = read_log(tmp_path)
    assert [record["step"] for record in records] == list(range(1, 13))
    assert all(record["loss"] == record["step"] / 2 and record["time"] > 1e9 for record in records)


def test_a_run_that_starts_anew_does_not_mix_with_the_one_before(tmp_path):
    with MetricWriter(tmp_path) as log:
        log.text(0, "parameters: 5")
    run(tmp_path, 0, 4)
    assert [record["step"] for record in read_log(tmp_path)] == [1, 2, 3, 4]


def test_a_half_written_last_line_is_left_out_and_mended_on_resume(tmp_path):
    run(tmp_path, 0, 3)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    assert len(read_log(tmp_path)) == 3
    run(tmp_path, 3, 5)
    assert [record["step"] for record in read_log(tmp_path)] == [1, 2, 3, 4, 5]


def test_a_damaged_line_in_the_middle_is_named_and_nothing_is_lost(tmp_path):
    run(tmp_path, 0, 3)
    path = tmp_path / "log.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "[1, 2]", *lines[1:]]) + "\n")
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"line 2 of .*log\.jsonl"), MetricWriter(tmp_path, 3):
        pass
    assert path.read_bytes() == before


def test_a_killed_run_keeps_the_lines_that_it_wrote(tmp_path):
    log = MetricWriter(tmp_path).__enter__()
    log.scalars(1, {"loss": 1.0})
    assert len(read_log(tmp_path)) == 1  # before anything is closed
    log.__exit__(None, None, None)


def test_numbers_that_are_not_finite_leave_the_log_readable_by_any_json_reader(tmp_path):
    def forbidden(word):
        raise AssertionError(word)

    with MetricWriter(tmp_path) as log:
        log.scalars(1, {"loss": math.nan, "mask": np.float32(math.inf), "fine": np.float32(0.5)})
    line = (tmp_path / "log.jsonl").read_text()
    record = json.loads(line, parse_constant=forbidden)
    assert (record["loss"], record["mask"], record["fine"]) == (None, None, 0.5)


def test_the_console_shows_one_line_a_step(tmp_path, capsys):
    run(tmp_path, 0, 2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "step       2" in lines[1]
    assert "loss 1 " in lines[1]


def test_pictures_and_sentences_arrive_unchanged(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    with MetricWriter(tmp_path) as log:
        log.pictures(20, {"masks": picture})
        log.text(20, "VGG-19 is untrained")
    stored = Image.open(tmp_path / "pictures" / "masks_0000020.png")
    np.testing.assert_array_equal(np.asarray(stored), picture)
    assert read_log(tmp_path)[0]["text"] == "VGG-19 is untrained"
    assert len(list((tmp_path / "pictures").iterdir())) == 1  # no temporary file stays


def test_tensorboard_gets_the_numbers_and_hides_the_steps_that_are_run_again(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    run(tmp_path, 0, 3)
    (first,) = (tmp_path / "tensorboard").iterdir()
    run(tmp_path, 2, 3)
    second = next(path for path in (tmp_path / "tensorboard").iterdir() if path != first)

    def events(path):
        data, at = path.read_bytes(), 0
        while at < len(data):  # records: length (uint64), its checksum, the event, its checksum
            size = int.from_bytes(data[at : at + 8], "little")
            yield Event.FromString(data[at + 12 : at + 12 + size])
            at += 16 + size

    losses = {e.step: v.simple_value for e in events(first) for v in e.summary.value if v.tag == "loss"}
    assert losses == {1: 0.5, 2: 1.0, 3: 1.5}
    assert [e.step for e in events(second) if e.HasField("session_log")] == [3]


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 1), np.uint8)])
def test_a_picture_of_the_wrong_kind_is_refused(tmp_path, bad):
    with MetricWriter(tmp_path) as log, pytest.raises(ValueError, match="masks"):
        log.pictures(1, {"masks": bad})


def test_a_picture_can_not_leave_its_folder(tmp_path):
    with MetricWriter(tmp_path) as log, pytest.raises(ValueError, match="name"):
        log.pictures(1, {"../masks": np.zeros((4, 4, 3), np.uint8)})


def test_a_workdir_that_can_not_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--workdir"), MetricWriter(tmp_path / "file"):
        pass
