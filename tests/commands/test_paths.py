"""Is `~` the home folder, is an address refused before anything is written, and does a job finish with any names and any terminal?"""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from clips import clip, save

import maskanim_jax
from input_pipeline import prepare
from input_pipeline.from_config import ensure_shards
from maskanim_jax import animate, convert, crop, export
from maskanim_jax.errors import UserError
from maskanim_jax.utils.atomic_files import atomic_write
from maskanim_jax.utils.paths import expand_flags, hidden_beside, path_or_bucket, user_path, user_text
from maskanim_jax.video.reader import open_frames
from maskanim_jax.video.writer import VideoWriter
from maskanim_jax.workdir.config_files import find_config, find_config_flag, load_config

ROOT = Path(__file__).parents[2]


def test_home_and_addresses(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a") == tmp_path / "a"
    assert user_text("~/a/") == f"{tmp_path}/a/"
    assert user_path(Path("a/~b")) == Path("a/~b")
    for address in ("gs://a/b", "s3://a/b", "https://a/b.mp4", "HTTP://a", "file:///a", Path("s3://a/b")):
        with pytest.raises(UserError, match="address"):
            user_path(address)
    for path in ("C:/a", "a:b", "a/b://c", "http"):
        assert user_path(path) == Path(path)


def test_flags_of_the_main_command(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    argv = [
        "main",
        "--workdir=~/run",
        "--config",
        "~/c.py",
        "--config.data.shards=~/s",
        "--config.name=a~b",
        "--mode=train",
    ]
    expand_flags(argv, ("workdir", "config"), ("config.",))
    home = str(tmp_path)
    assert argv[1:] == [
        f"--workdir={home}/run", "--config", f"{home}/c.py", f"--config.data.shards={home}/s", "--config.name=a~b", "--mode=train",
    ]  # fmt: skip
    for flag in (
        "--workdir=s3://a/b",
        "--config.data.shards=https://a/b",
        "-workdir=s3://a",
        "--config.animate.pairs_csv=gs://a/b.csv",
    ):
        with pytest.raises(UserError, match="address"):
            expand_flags(["main", flag], ("workdir", "config"), ("config.",))


def test_buckets_pass_where_they_can_be_opened():
    argv = ["main", "--workdir=gs://bucket/run", "--config.data.shards=gs://bucket/shards"]
    expand_flags(argv, ("workdir", "config"), ("config.",))
    assert argv[1:] == ["--workdir=gs://bucket/run", "--config.data.shards=gs://bucket/shards"]
    assert path_or_bucket("gs://bucket/run") == Path("gs:/bucket/run")
    for given in ("s3://bucket/run", Path("s3://bucket/run")):
        with pytest.raises(
            UserError, match=r"^s3://bucket/run is an address that cannot be opened: .* gs://BUCKET/FOLDER"
        ):
            path_or_bucket(given)
    with pytest.raises(UserError, match=r"^gs://bucket/run is an address"):
        user_path(Path("gs://bucket/run"))


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (animate.main, ["--checkpoint=puppets", "--source=s3://a.png", "--driving=puppets", "--output=o.mp4"]),
        (animate.main, ["--checkpoint=puppets", "--source=puppets", "--driving=puppets", "--output=s3://a/o.mp4"]),
        (animate.main, ["--checkpoint=s3://a/run", "--source=puppets", "--driving=puppets", "--output=o.mp4"]),
        (convert.main, ["--input=https://a/vox-cpk.pth.tar", "--output=run"]),
        (export.main, ["--checkpoint=puppets", "--output=s3://a"]),
        (crop.main, ["--input", "http://a/b.mp4", "--output=o.mp4"]),
    ],
)
def test_addresses_are_refused_before_anything_is_written(tmp_path, monkeypatch, command, flags):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is an address"):
        command(flags)
    assert not list(tmp_path.iterdir())


def test_prepare_and_config_and_python_take_the_same_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["prepare", "--input=s3://a", "--output=out"])
    with pytest.raises(UserError, match="address"):
        prepare.main()
    config = load_config("configs/taichi.py")
    config.data.shards = "~/shards"
    assert ensure_shards(config) == tmp_path / "shards"
    with pytest.raises(UserError, match=f"{tmp_path}/none"):
        maskanim_jax.load("~/none")
    with pytest.raises(UserError, match="address"):
        maskanim_jax.load("s3://a/run")
    assert not list(tmp_path.iterdir())


# -- configs -------------------------------------------------------------------------------------------------------------------------------


def test_configs_are_found_alike_from_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("configs/taichi.py:released", "configs/taichi:released", "taichi.py:released", "taichi:released"):
        assert find_config(name) == f"{ROOT / 'configs' / 'taichi.py'}:released"
        assert load_config(name).reference == "released"
        argv = ["main", f"--config={name}"]
        find_config_flag(argv)
        assert argv[1] == f"--config={ROOT / 'configs' / 'taichi.py'}:released"
    (tmp_path / "taichi.py").write_text("raise RuntimeError")  # the user's own file takes precedence
    assert find_config("taichi.py") == "taichi.py"
    for name in ("none", "configs/none.py", "elsewhere/taichi.py", "configs/__init__.py"):
        with pytest.raises(UserError, match=r"there is no file .*configs/demo\.py"):
            find_config(name)
        with pytest.raises(UserError, match="there is no file"):
            find_config_flag(["main", "--config", name])


# -- names ---------------------------------------------------------------------------------------------------------------------------------

LONG = "ü" * 123 + ".mp4"  # 250 bytes


@pytest.mark.parametrize("name", [os.fsdecode(b"n\xff\xe9me.mp4"), LONG])
def test_names_that_are_no_text_or_long_are_written(tmp_path, name):
    frames = clip(3)
    save(tmp_path / name, frames)
    with open_frames(tmp_path / name) as found:
        assert sum(1 for _ in found) == 3
    with atomic_write(tmp_path / name) as temporary:
        temporary.write_bytes(b"new")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(os.fsencode(hidden_beside(tmp_path / name, "x" * 12).name)) < 255


def test_a_folder_of_frames_keeps_its_rate(tmp_path):
    rate = Fraction(30000, 1001)
    for _ in range(2):  # it may be written again
        with VideoWriter(f"{tmp_path}/out/", rate) as writer:
            for frame in clip(3):
                writer.write(frame)
    with open_frames(tmp_path / "out") as found:
        assert (found.fps, sum(1 for _ in found)) == (rate, 3)


@pytest.mark.subprocess
@pytest.mark.parametrize("how", ["2>&-", "2> >(exit)", "1>&- 2>&-"])
def test_a_closed_terminal_ends_no_job(tmp_path, how):
    """Closed, or a pipe without a reader: the job continues, and messages do not end up in the next opened file."""
    program = (
        "import os, sys, time\n"
        "from maskanim_jax.errors import run_main\n"
        "def main():\n"
        "    with open('done', 'w') as file:\n"
        "        assert file.fileno() > 2\n"
        "        for number in range(3):\n"
        "            print('progress', file=sys.stderr, flush=True); time.sleep(0.05)\n"
        "        os.write(2, b'from a library')\n"
        "        print('caf\\udce9')\n"
        "        file.write('whole')\n"
        "run_main(main)\n"
    )
    (tmp_path / "job.py").write_text(program)
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} job.py {how}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0
    assert (tmp_path / "done").read_text() == "whole"
