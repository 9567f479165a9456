"""What happens when a record is damaged, or a shard disappears while training reads it?"""

from __future__ import annotations

import contextlib
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
from few_frames import CLIPS, FRAMES, rewrite, shard_of, stream, take, write_shards

from input_pipeline.bad_records import BadRecord, MissingShardError
from input_pipeline.record import parse
from input_pipeline.shards import Split, open_split
from maskanim_jax.errors import UserError


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def shards(intact, tmp_path) -> Path:
    return Path(shutil.copytree(intact, tmp_path / "shards"))


def flip(shards: Path, clip: int, frame: int, bit: int = 3, where: float = 0.5) -> None:
    """Flips a bit inside the stored picture of a frame."""
    picture = parse(open_split(shards, "train")._record(clip, frame)).picture
    shard = shard_of(shards, clip)
    content = bytearray(shard.read_bytes())
    start = content.find(picture)
    assert start > 0
    content[start + int(where * len(picture))] ^= 1 << bit
    shard.write_bytes(content)


def cut_pictures(shards: Path, *records: int) -> None:
    def changed(number, feature):
        if number in records:
            whole = feature["frame"].bytes_list.value[0]
            feature["frame"].bytes_list.value[0] = whole[: len(whole) // 2]

    rewrite(shards, changed)


def readable(split: Split) -> set[tuple[int, int]]:
    """(clip, frame) of what can be read; each must then be the frame that was written."""
    found = set()
    for clip, count in enumerate(CLIPS.values()):
        for frame in range(count):
            try:
                assert (split.frame(clip, frame) == (clip, frame, 0)).all()
                found.add((clip, frame))
            except UserError:
                pass
    return found


ALL = {(clip, frame) for clip, count in enumerate(CLIPS.values()) for frame in range(count)}


@pytest.mark.parametrize("where", [0.0, 0.3, 0.99])
def test_a_flipped_bit_names_shard_clip_and_frame_and_harms_no_other_record(shards, where):
    flip(shards, 2, 4, where=where)
    split = open_split(shards, "train")
    with pytest.raises(BadRecord, match=r"is damaged at frame 4 of clip a#3") as raised:
        split.frame(2, 4)
    assert str(shard_of(shards, 2)) in str(raised.value)
    assert (raised.value.clip, raised.value.frame) == (2, 4)
    assert readable(split) == ALL - {(2, 4)}


def test_a_picture_cut_short_names_shard_clip_and_frame(shards):
    cut_pictures(shards, 41)  # a#2's second frame
    split = open_split(shards, "train")
    with pytest.raises(BadRecord, match=rf"{shard_of(shards, 1).name} is damaged at frame 1 of clip a#2"):
        split.frame(1, 1)
    assert readable(split) == ALL - {(1, 1)}


def test_a_record_of_another_frame_is_damage(shards):
    def changed(number, feature):
        if number == 0:
            feature["index"].int64_list.value[0] = 1
        if number == 43:
            feature["clip"].bytes_list.value[0] = b"a#2"

    rewrite(shards, changed)
    assert readable(open_split(shards, "train")) == ALL - {(0, 0), (2, 0)}


def test_damage_to_the_ends_of_a_shard_never_gives_a_wrong_frame(shards):
    shard = shard_of(shards, 0)
    content = shard.read_bytes()
    for place in [*range(0, 64, 9), *range(-1, -400, -23), *range(-65536, -65636, -31)]:
        if not -len(content) <= place:
            continue
        harmed = bytearray(content)
        harmed[place] ^= 0x10
        shard.write_bytes(harmed)
        readable(open_split(shards, "train"))  # asserts what it reads


@pytest.mark.parametrize("cut", ["half", "empty"])
def test_a_shard_cut_short_is_refused_at_the_start_with_the_clips_in_it(shards, cut):
    shard = shard_of(shards, 0)
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2 if cut == "half" else 0])
    with pytest.raises(UserError, match=r"instead of .* truncated .*clips?, from a#1 to .*; prepare") as raised:
        open_split(shards, "train")
    assert shard.name in str(raised.value)


@pytest.mark.parametrize("threads", [0, 2])
def test_a_damaged_record_ends_the_stream_in_its_turn(intact, shards, threads):
    batches = take(stream(open_split(intact, "train")), 40)
    frame = next(frame for frame in range(CLIPS["c#1"]) if first_drawn(batches, 4, frame) > 3)
    at = first_drawn(batches, 4, frame)
    flip(shards, 4, frame)
    given, error = until_it_ends(stream(open_split(shards, "train"), threads=threads))
    assert isinstance(error, BadRecord)
    assert f"frame {frame} of clip c#1" in str(error)
    assert len(given) == at


def until_it_ends(pairs):
    """The batches before the error, and the error."""
    given = []
    with contextlib.closing(pairs.batches()) as batches:
        try:
            for batch in batches:
                given.append(batch)
        except UserError as error:
            return given, error
    raise AssertionError("an endless stream ended without an error")


def first_drawn(batches, clip, frame):
    """The first step that reads the frame, or -1."""
    for step, batch in enumerate(batches):
        if any(c == clip and frame in pair for c, pair in zip(batch["clip"], batch["frames"], strict=True)):
            return step
    return -1


def test_damaged_records_are_passed_over_and_counted_when_that_is_allowed(intact, shards):
    cut_pictures(shards, 40, 50)  # a#2's and c#1's first frames
    pairs = stream(open_split(shards, "train"), max_bad_fraction=0.05)
    whole, harmed = take(stream(open_split(intact, "train")), 40), take(pairs, 40)
    replaced = 0
    for batch, other in zip(whole, harmed, strict=True):
        for row in range(4):
            pair = (int(batch["clip"][row]), *batch["frames"][row].tolist())
            instead = (int(other["clip"][row]), *other["frames"][row].tolist())
            bad = (pair[0] in (1, 4)) and 0 in pair[1:]
            replaced += bad
            assert bad or pair == instead
            if bad:  # the same identity, sorted frames, none of them damaged
                assert list(CLIPS)[pair[0]][0] == list(CLIPS)[instead[0]][0]
                assert instead[1] <= instead[2]
                assert not (instead[0] in (1, 4) and 0 in instead[1:])
            for key, frame in (("source", instead[1]), ("driving", instead[2])):
                assert (other[key][row] == (instead[0], frame, 0)).all()
    assert replaced > 5
    assert pairs.bad_records.records == 2
    assert pairs.bad_records.redrawn >= replaced
    figures = pairs.bad_records.metrics()
    assert figures["bad_records"] == 2
    assert figures["redrawn_pairs"] == pairs.bad_records.redrawn
    messages = pairs.bad_records.drain_messages()
    assert len(messages) == 2
    assert all("train.array_record-" in line and f"of {FRAMES} so far" in line for line in messages)
    assert pairs.bad_records.drain_messages() == []


def test_what_takes_a_damaged_pairs_place_depends_neither_on_threads_nor_processes_nor_on_where_one_entered(shards):
    cut_pictures(shards, 1, 40, 50)
    split = open_split(shards, "train")
    whole = take(stream(split, max_bad_fraction=0.1), 12)
    for options, start in (({"threads": 0}, 0), ({"threads": 3}, 5), ({"process_count": 2}, 7)):
        count = options.get("process_count", 1)
        parts = [
            take(stream(split, max_bad_fraction=0.1, process_index=i, **options), 12 - start, start)
            for i in range(count)
        ]
        for step, batches in enumerate(zip(*parts, strict=True), start):
            for key in whole[step]:
                np.testing.assert_array_equal(np.concatenate([batch[key] for batch in batches]), whole[step][key])


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_more_damage_than_is_allowed_ends_the_stream_at_a_fixed_step(intact, shards, threads):
    bad = (5, 6, 7, 8)  # of c#1's nine
    cut_pictures(shards, *(50 + frame for frame in bad))
    whole = take(stream(open_split(intact, "train")), 40)
    met = sorted(first_drawn(whole, 4, frame) for frame in bad)
    assert met[0] != -1
    given, error = until_it_ends(stream(open_split(shards, "train"), max_bad_fraction=2.5 / FRAMES, threads=threads))
    for part in (f"3 of {FRAMES} frames", "more than config.data.max_bad_fraction=", "of clip c#1"):
        assert part in str(error)
    assert 0 < len(given) <= met[2]  # sooner where a replacement met one
    more = take(stream(open_split(shards, "train"), max_bad_fraction=0.5), len(given))
    for batch, other in zip(given, more, strict=True):
        np.testing.assert_array_equal(batch["source"], other["source"])
    if threads:  # at the same step as without
        alone, _ = until_it_ends(stream(open_split(shards, "train"), max_bad_fraction=2.5 / FRAMES, threads=0))
        assert len(alone) == len(given)


def test_an_identity_of_which_nothing_can_be_read_ends_the_stream(shards):
    cut_pictures(shards, 48, 49)
    with pytest.raises(BadRecord, match="of clip b#1"):
        take(stream(open_split(shards, "train"), max_bad_fraction=0.9), 20)


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("max_bad_fraction", [0.0, 0.5])
def test_a_shard_that_disappears_ends_the_stream_with_one_sentence_whatever_may_be_skipped(
    shards, threads, max_bad_fraction
):
    pairs = stream(open_split(shards, "train"), threads=threads, max_bad_fraction=max_bad_fraction)
    shard = shard_of(shards, 0)
    with contextlib.closing(pairs.batches()) as batches:
        next(batches)
        shard.unlink()
        with pytest.raises(MissingShardError, match=r"No such file.*of clip .* put it back") as raised:
            list(itertools.islice(batches, 40))  # what was read ahead is still given out
    assert str(shard) in str(raised.value)
    assert pairs.bad_records.records == 0


def test_a_shard_that_shrinks_while_it_is_read_is_lost_not_damaged(shards):
    split = open_split(shards, "train")
    split.frame(0, 0)
    shard = shard_of(shards, 0)
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(MissingShardError, match="truncated or changed"):
        split.frame(0, 1)
