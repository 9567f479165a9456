"""Is a training batch a pure function of (seed, step), and what does it cost?"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from few_frames import SIDE, stream, take, write_shards

from input_pipeline.pairs import Batch
from input_pipeline.shards import Split, open_split
from maskanim_jax.errors import UserError


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("pairs"))


@pytest.fixture
def split(shards) -> Split:
    return open_split(shards, "train")


def assert_same(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def differs(left: list[Batch], right: list[Batch]) -> bool:
    return any(not np.array_equal(a["frames"], b["frames"]) for a, b in zip(left, right, strict=True))


def test_a_batch_holds_what_its_clip_and_frame_numbers_say(split):
    for batch in take(stream(split), 8):
        assert batch["source"].shape == batch["driving"].shape == (4, SIDE, SIDE, 3)
        assert batch["source"].dtype == batch["driving"].dtype == np.uint8
        assert batch["frames"].dtype == batch["clip"].dtype == np.int32
        assert (batch["frames"][:, 0] <= batch["frames"][:, 1]).all()
        for key, column in (("source", 0), ("driving", 1)):
            np.testing.assert_array_equal(batch[key][:, 3, 3, 0], batch["clip"])
            np.testing.assert_array_equal(batch[key][:, 3, 3, 1], batch["frames"][:, column])


def test_a_pair_costs_at_most_two_frames_however_long_the_clip(split, monkeypatch):
    read = []
    original = Split._record

    def counted(self, clip, index):
        read.append((clip, index))
        return original(self, clip, index)

    monkeypatch.setattr(Split, "_record", counted)
    batches = take(stream(split, threads=0, batch_size=8, repeats=40), 6)
    assert any(split.clips[clip].count == 40 for batch in batches for clip in batch["clip"])
    # Grain has begun the next batch.
    assert len(read) <= 2 * 8 * (6 + 1)


def test_frames_are_drawn_evenly_with_replacement(split):
    batches = take(stream(split, batch_size=5, repeats=200), 120)  # one epoch: 200 draws of each identity
    clips = np.concatenate([batch["clip"] for batch in batches])
    frames = np.concatenate([batch["frames"] for batch in batches])
    short = frames[clips == 3]  # b#1 has two frames: (0, 0), (0, 1), (1, 1) as 1 : 2 : 1
    count = Counter(map(tuple, short.tolist()))
    assert set(count) == {(0, 0), (0, 1), (1, 1)}
    assert sum(count.values()) == 200
    assert 70 <= count[0, 1] <= 130
    assert len(set(frames[clips == 0].ravel().tolist())) > 30  # of a#1's 40


def test_the_same_seed_gives_the_same_batches_and_another_seed_others(split):
    first = take(stream(split), 9)
    assert_same(first, take(stream(split), 9))
    assert differs(first, take(stream(split, seed=1), 9))


@pytest.mark.parametrize("step", [1, 3, 4, 5, 11, 40])
def test_entering_at_a_step_equals_the_run_that_came_there(split, step):
    # An epoch has 4 steps, so that the entries lie before, at and after its end.
    pairs = stream(split)
    assert pairs.steps_per_epoch == 4
    assert_same(take(pairs, step + 3)[step:], take(stream(split), 3, start=step))


def test_the_number_of_threads_changes_nothing(split):
    one = take(stream(split, threads=1), 9)
    for threads in (0, 3):
        assert_same(one, take(stream(split, threads=threads), 9))


@pytest.mark.parametrize("count", [2, 4])
def test_the_processes_together_see_the_batch_of_one_process_row_by_row(split, count):
    whole = take(stream(split), 9)
    parts = [take(stream(split, process_index=index, process_count=count), 9) for index in range(count)]
    union = [
        {key: np.concatenate([part[key] for part in step]) for key in step[0]} for step in zip(*parts, strict=True)
    ]
    assert_same(whole, union)


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 2), (2, 1)])
def test_a_run_goes_on_with_other_numbers_of_processes_and_threads(split, before, after):
    whole = take(stream(split), 11)
    for count, start, end, threads in ((before, 0, 6, 1), (after, 6, 11, 2)):
        rows = 4 // count
        for index in range(count):
            own = take(stream(split, process_index=index, process_count=count, threads=threads), end - start, start)
            mine = slice(index * rows, (index + 1) * rows)
            assert_same(own, [{key: value[mine] for key, value in batch.items()} for batch in whole[start:end]])


def test_no_two_processes_see_the_same_pair_in_a_step(split):
    # One pass over five clips: a clip that two processes see in a step, or twice in the pass, is a pair too many.
    parts = [
        take(stream(split, sampling="clip", batch_size=5, process_index=index, process_count=5), 6)
        for index in range(5)
    ]
    for step in zip(*parts, strict=True):
        assert sorted(int(batch["clip"][0]) for batch in step) == [0, 1, 2, 3, 4]


def test_epochs_differ_in_order_and_in_frames(split):
    batches = take(stream(split), 8)
    assert differs(batches[:4], batches[4:])
    orders = [[batch["clip"].tolist() for batch in half] for half in (batches[:4], batches[4:])]
    assert orders[0] != orders[1]


def test_identity_sampling_gives_each_identity_its_equal_share_and_all_its_clips(split):
    pairs = stream(split, batch_size=3, repeats=20)
    assert pairs.steps_per_epoch == 20
    clips = np.concatenate([batch["clip"] for batch in take(pairs, 20)])
    identities = Counter(split.clips[clip].identity for clip in clips)
    assert identities == {"a": 20, "b": 20, "c": 20}
    assert set(clips.tolist()) == set(range(5))


def test_clip_sampling_is_one_pass_over_the_clips_whatever_the_repeats(split):
    pairs = stream(split, sampling="clip", batch_size=5, repeats=7)
    assert pairs.steps_per_epoch == 1
    for batch in take(pairs, 5):
        assert sorted(batch["clip"].tolist()) == [0, 1, 2, 3, 4]


def test_the_description_states_clips_identities_pairs_and_steps(split):
    about = stream(split).describe()
    for part in ("5 clips", "3 identities x 6", "59 frames of 8 x 8", "18 pairs", "4 steps of 4"):
        assert part in about
    assert stream(split).describe(epochs=100).endswith("; 100 epochs are 400 steps, 1600 pairs")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 19}, "lower batch_size or raise data.num_repeats"),
        ({"batch_size": 6, "sampling": "clip"}, "5 pairs an epoch"),
        ({"batch_size": 4, "process_count": 3}, "multiple of the number of processes, 3"),
        ({"process_index": 2, "process_count": 2}, "process 2 of 2"),
        ({"max_bad_fraction": 1.0}, "data.max_bad_fraction=1.0"),
        ({"max_bad_fraction": -0.1}, "data.max_bad_fraction=-0.1"),
        ({"sampling": "video"}, "data.sampling=video is unknown"),
        ({"repeats": 0}, "data.num_repeats=0"),
        ({"seed": -1}, "seed=-1"),
        ({"threads": -1}, "data.num_threads=-1"),
    ],
)
def test_settings_that_cannot_work_are_refused(split, options, sentence):
    with pytest.raises(UserError, match=sentence):
        stream(split, **options)


def test_the_fingerprint_is_that_of_the_data(split, shards):
    assert stream(split).fingerprint == split.fingerprint
    assert len(split.fingerprint) == 64
    assert json.loads((shards / "clips.json").read_text())["size"] == SIDE
