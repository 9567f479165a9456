"""Is a set the same however it was made: in one go, after a kill, by many processes, by many machines, on Beam?"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from input_pipeline.preparation.pipeline import Job, run_merge, run_share
from input_pipeline.preparation.shard_jobs import Settings
from input_pipeline.prepare import main, prepare
from input_pipeline.shards import open_split
from maskanim_jax.errors import UserError

REPOSITORY = Path(__file__).parents[2]
SIZE = 16


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Seven train clips of 2 to 8 frames, one of them unreadable, and two test clips."""
    root = tmp_path_factory.mktemp("root")
    for split, count in (("train", 7), ("test", 2)):
        for clip in range(count):
            folder = root / split / f"id{clip // 2}#{clip}"
            folder.mkdir(parents=True)
            for index in range(2 + clip):
                Image.new("RGB", (24, 20), (10 * index, 30 * clip, 99)).save(folder / f"{index}.png")
    (root / "train/id1#bad.mp4").write_text("no video")
    return root


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def reference(root, tmp_path_factory) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("reference") / "shards"
    prepare(root, output, size=SIZE, progress=False)
    return content(output)


def command(
    root: Path, output: Path, *more: str, program: tuple[str, ...] = ("-m", "input_pipeline.prepare")
) -> list[str]:
    options = [f"--input={root}", f"--output={output}", f"--size={SIZE}", *more]
    return [sys.executable, *program, *options]


TRAPPED = """
import sys, time
sys.path.insert(0, {repository!r})
from input_pipeline import prepare
from input_pipeline.preparation import shard_jobs

def square_frames(clip, size, read=shard_jobs.square_frames):
    while clip.name.startswith("zz"):
        time.sleep(60)
    return read(clip, size)

shard_jobs.square_frames = square_frames  # here, and in spawned workers, which import this file too
if __name__ == "__main__":
    sys.exit(prepare.main())
"""


@pytest.fixture
def trapped(tmp_path) -> tuple[str, ...]:
    """A preparation in which reading a clip zz... never ends, so that it is killed midway on any machine."""
    (tmp_path / "trapped.py").write_text(TRAPPED.format(repository=str(REPOSITORY)))
    return (str(tmp_path / "trapped.py"),)


def test_three_processes_write_the_same_bytes_as_one(root, reference, tmp_path):
    prepare(root, tmp_path / "shards", size=SIZE, progress=False, workers=3)
    assert content(tmp_path / "shards") == reference
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shards"]


@pytest.mark.subprocess
def test_a_killed_preparation_goes_on_without_making_finished_shards_again(root, reference, tmp_path, trapped):
    (tmp_path / "root").mkdir()
    for split in ("train", "test"):
        (tmp_path / "root" / split).mkdir()
        for entry in (root / split).iterdir():
            (tmp_path / "root" / split / entry.name).symlink_to(entry)
    (tmp_path / "root/train/zz.mp4").write_text("no video")  # the last clip of train
    output, partial = tmp_path / "shards", tmp_path / ".shards.partial"
    process = subprocess.Popen(
        command(tmp_path / "root", output, "--workers=1", program=trapped), cwd=REPOSITORY, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while not (partial / "train-00006-of-00009.json").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not output.exists()
    made = {path.name: path.stat().st_mtime_ns for path in partial.glob("*.array_record")}
    assert len(made) >= 6
    again = subprocess.run(
        command(tmp_path / "root", output, "--workers=1"), cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert f"{len(made) + 1} of 11 shards were already finished" in again.stdout  # and the one of the unreadable clip
    kept = {output / f"video_folder-train.array_record-{number:05d}-of-00007" for number in range(6)}
    assert {path.stat().st_mtime_ns for path in kept} <= set(made.values())
    ours = content(output)
    assert {k: v for k, v in ours.items() if "array_record" in k} == {
        k: v for k, v in reference.items() if "array_record" in k
    }
    assert not partial.exists()


@pytest.mark.subprocess
def test_no_process_outlives_a_killed_preparation(tmp_path, trapped):
    (tmp_path / "root/train").mkdir(parents=True)
    for number in range(2):
        (tmp_path / f"root/train/zz{number}.mp4").write_text("no video")
    process = subprocess.Popen(
        command(tmp_path / "root", tmp_path / "shards", "--workers=2", program=trapped),
        cwd=REPOSITORY,
        stderr=subprocess.DEVNULL,
    )
    try:
        children: set[int] = set()
        deadline = time.monotonic() + 120
        while len(children) < 3:  # two workers and multiprocessing's resource tracker
            listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            if not listed.exists():
                pytest.skip("needs /proc to list children")
            children = set(map(int, listed.read_text().split()))
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    while any(Path(f"/proc/{child}").exists() and "Z" not in state(child) for child in children):
        assert time.monotonic() < deadline + 60
        time.sleep(0.05)


def state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


def test_shares_of_three_workers_merge_into_the_same_bytes(root, reference, tmp_path):
    job, output = Job(root, Settings(SIZE), progress=False), tmp_path / "shards"
    run_share(job, output, False, (1, 3))
    assert "of 10 shards" in run_share(job, output, False, (2, 3))
    with pytest.raises(UserError, match=r"4 of 10 shards .* missing .*train-00000"):
        run_merge(job, output, False)
    assert not output.exists()
    run_share(job, output, False, (0, 3))
    run_merge(job, output, False)
    assert content(output) == reference


def test_merging_names_the_shard_that_has_changed(root, tmp_path):
    job, output = Job(root, Settings(SIZE), progress=False), tmp_path / "shards"
    run_share(job, output, False, (0, 1))
    part = min((tmp_path / ".shards.partial").glob("train*.array_record"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(UserError, match="has changed") as caught:
        run_merge(job, output, False)
    assert str(part) in str(caught.value)
    assert not output.exists()


def test_shares_made_with_other_settings_are_not_merged(root, tmp_path):
    run_share(Job(root, Settings(SIZE), progress=False), tmp_path / "shards", False, (0, 1))
    with pytest.raises(UserError, match="other clips or settings"):
        run_merge(Job(root, Settings(SIZE, quality=50), progress=False), tmp_path / "shards", False)


def test_two_preparations_of_one_output_do_not_meet(root, tmp_path):
    from input_pipeline.preparation.staging import work_folder

    with (
        work_folder(tmp_path / "shards", exclusive=True),
        pytest.raises(UserError, match="another preparation is running"),
    ):
        prepare(root, tmp_path / "shards", size=SIZE, progress=False)


def test_a_changed_clip_is_made_again_and_the_others_are_kept(root, tmp_path, capsys):
    job, output = Job(root, Settings(SIZE)), tmp_path / "shards"
    run_share(job, output, False, (0, 1))
    folder = root / "test/id0#0"
    before = (folder / "0.png").read_bytes()
    try:
        Image.new("RGB", (24, 20), (255, 255, 255)).save(folder / "0.png")
        prepare(root, output, size=SIZE)
    finally:
        (folder / "0.png").write_bytes(before)
    assert "9 of 10 shards were already finished" in capsys.readouterr().out
    assert open_split(output, "test").frame(0, 0).min() > 250


def test_a_kill_between_the_two_renames_of_overwriting_loses_nothing(root, reference, tmp_path):
    output, folder = tmp_path / "shards", tmp_path / ".shards.partial"
    prepare(root, output, size=SIZE, progress=False)
    folder.mkdir()
    output.rename(folder / "old")
    with pytest.raises(UserError, match="--overwrite"):
        prepare(root, output, size=8, progress=False)
    assert content(output) == reference


@pytest.mark.parametrize("worker", ["4/4", "x", "-1/3", "1"])
def test_impossible_shares_are_refused(root, tmp_path, monkeypatch, worker):
    monkeypatch.setattr(sys, "argv", command(root, tmp_path / "shards", f"--worker={worker}")[2:])
    with pytest.raises(UserError, match="give i/n"):
        main()


def test_a_disk_fault_while_writing_is_found_before_the_shard_counts(root, tmp_path, monkeypatch):
    import input_pipeline.preparation.shard_writer as builder

    class Faulty(builder.FrameWriter):
        def write(self, record: builder.FrameRecord) -> None:
            frame = record.frame if record.index != 1 else record.frame[:-9] + bytes(9)
            super().write(builder.FrameRecord(**(vars(record) | {"frame": frame})))

    monkeypatch.setattr(builder, "FrameWriter", Faulty)
    with pytest.raises(UserError, match="does not read back what was written, at clip id0#0"):
        prepare(root, tmp_path / "shards", size=SIZE, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_beam_writes_the_same_bytes(root, reference, tmp_path):
    pytest.importorskip("apache_beam", reason="needs the extra maskanim_jax[beam]")
    prepare(root, tmp_path / "shards", size=SIZE, progress=False, beam=["--runner=DirectRunner"])
    assert content(tmp_path / "shards") == reference


def test_a_builder_of_tfds_runs_on_the_beam_runner_it_is_given(root, reference, tmp_path):
    pytest.importorskip("apache_beam", reason="needs the extra maskanim_jax[beam]")
    import tensorflow_datasets as tfds

    import input_pipeline.builders  # noqa: F401

    builder = tfds.builder("video_folder", data_dir=str(tmp_path), size=SIZE)
    config = tfds.download.DownloadConfig(manual_dir=root, beam_runner="DirectRunner")
    builder.download_and_prepare(download_config=config)
    made = content(Path(builder.data_dir))
    assert {name: made[name] for name in made if "array_record" in name} == {
        name: reference[name] for name in reference if "array_record" in name
    }


def test_without_beam_its_option_says_what_to_install(root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match=r"maskanim_jax\[beam\]"):
        prepare(root, tmp_path / "shards", size=SIZE, progress=False, beam=[])


def test_checking_finds_the_same_and_writes_nothing(root, tmp_path, reference, monkeypatch, capsys):
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["prepare", f"--input={root}", "--check", f"--size={SIZE}", "--workers=1"])
    assert main() == 0
    said = capsys.readouterr().out
    counted = json.loads(reference["report.json"])["splits"]["train"]
    assert f"train: {counted['clips']} clips of {counted['identities']} identities, {counted['frames']} frames" in said
    assert "bad.mp4 is not a video" in said
    assert "nothing was written" in said
    assert sorted(tmp_path.rglob("*")) == before
