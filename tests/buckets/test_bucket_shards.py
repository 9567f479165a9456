"""Do shards in a bucket reach the reader intact, once for all processes of a machine, and do `prepare` and `inspect` support buckets?"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from gcs_server import BUCKET
from tiny import tiny_config

from input_pipeline import inspect, prepare, shard_cache
from input_pipeline.from_config import ensure_shards, open_data
from input_pipeline.pairs import PairStream
from input_pipeline.shards import open_split
from maskanim_jax.buckets import connection
from maskanim_jax.buckets.address import address_of
from maskanim_jax.errors import UserError


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """Each test opens its shards anew."""
    monkeypatch.setattr(shard_cache, "_fetching", {})
    monkeypatch.setattr(connection, "MIN_DELAY", 0.02)


@pytest.fixture
def shards(gcs, tiny_shards, request):
    """The address of the tiny set in the bucket."""
    gcs[0].put_folder(tiny_shards, f"{request.node.name}/shards")
    return f"gs://{BUCKET}/{request.node.name}/shards"


def shard_names(folder):
    return sorted(json.loads((folder / "clips.json").read_text())["shards"])


@pytest.mark.subprocess
def test_frames_batches_and_fingerprint_are_those_of_a_disk(gcs, shards, tiny_shards):
    config = tiny_config(shards)
    split, local = open_data(config, "train"), open_split(tiny_shards, "train")
    assert split.fingerprint == local.fingerprint
    streams = [PairStream(each, batch_size=8, seed=0, repeats=4).batches() for each in (split, local)]
    for _ in range(4):
        one, other = (next(stream) for stream in streams)
        assert all(np.array_equal(one[name], other[name]) for name in one)
    folder = ensure_shards(config)
    shard_cache.fetching(folder).wait_for_all()
    for name in shard_names(tiny_shards):
        assert (folder / name).read_bytes() == (tiny_shards / name).read_bytes()


@pytest.mark.subprocess
def test_a_sentence_about_them_names_the_bucket_and_not_the_cache(gcs, shards):
    config = tiny_config(shards)
    with pytest.raises(UserError, match=rf"^{shards} has no other split"):
        open_data(config, "other")
    config.frame_size = 64
    with pytest.raises(UserError, match=rf"^{shards} has frames of 32 pixels"):
        open_data(config, "train")


@pytest.mark.subprocess
def test_a_reader_waits_for_the_shard_that_it_needs_and_no_other(gcs, shards, tiny_shards):
    _, proxy = gcs
    late, *_, wanted = shard_names(tiny_shards)
    proxy.fail("503", matches=lambda method, path: late in path)
    folder = ensure_shards(tiny_config(shards))
    cache = shard_cache.fetching(folder)
    cache.wait(wanted)
    assert (folder / wanted).is_file()
    assert not (folder / late).exists()
    proxy.fail(None)
    cache.wait_for_all()
    assert (folder / late).is_file()


@pytest.mark.subprocess
def test_a_second_start_asks_for_no_shard_again_and_other_shards_get_another_folder(gcs, shards, monkeypatch):
    server, proxy = gcs
    folder = ensure_shards(tiny_config(shards))
    shard_cache.fetching(folder).wait_for_all()
    proxy.seen.clear()
    shard_cache._fetching.clear()
    assert ensure_shards(tiny_config(shards)) == folder
    assert not [path for _, path in proxy.seen if "alt=media" in path]
    prefix = f"{address_of(shards).folder}/"
    server.write(f"{prefix}clips.json", server.read(f"{prefix}clips.json") + b"\n")
    shard_cache._fetching.clear()
    assert ensure_shards(tiny_config(shards)) != folder


@pytest.mark.subprocess
def test_what_a_killed_process_has_begun_is_resumed(gcs, shards, tiny_shards, tmp_path):
    _, proxy = gcs
    code = (
        "import sys; from tiny import tiny_config; from input_pipeline.from_config import ensure_shards\n"
        "ensure_shards(tiny_config(sys.argv[1])); print('on the way', flush=True); sys.stdin.read()"
    )
    proxy.latency = 0.2
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    killed = subprocess.Popen(
        [sys.executable, "-c", code, shards],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    assert killed.stdout.readline().strip() == b"on the way"
    killed.kill()
    killed.wait()
    proxy.latency = 0.0
    folder = ensure_shards(tiny_config(shards))
    shard_cache.fetching(folder).wait_for_all()
    for name in shard_names(tiny_shards):
        assert (folder / name).read_bytes() == (tiny_shards / name).read_bytes()


@pytest.mark.subprocess
def test_many_that_fetch_at_once_fetch_each_shard_once(gcs, shards, tiny_shards):
    _, proxy = gcs
    with ThreadPoolExecutor(3) as pool:  # as three processes
        caches = list(pool.map(shard_cache.ShardCache, [address_of(shards)] * 3))
    for cache in caches:
        cache.wait_for_all()
    fetched = [path for _, path in proxy.seen if "array_record" in path and "alt=media" in path]
    assert len(fetched) == len(shard_names(tiny_shards))


@pytest.mark.subprocess
def test_a_damaged_shard_is_named_with_its_clip(gcs, shards, tiny_shards):
    server, _ = gcs
    name = next(name for name in shard_names(tiny_shards) if "train" in name)
    content = bytearray((tiny_shards / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    server.write(f"{address_of(shards).folder}/{name}", bytes(content))
    folder = ensure_shards(tiny_config(shards))
    with pytest.raises(UserError, match=rf"^{shards}/{name} is damaged at clip p0000#0: prepare or upload"):
        shard_cache.fetching(folder).wait_for_all()
    assert not (folder / name).exists()


@pytest.mark.subprocess
def test_what_is_missing_or_cut_short_is_said_before_training(gcs, shards, tiny_shards):
    server, _ = gcs
    folder, (first, second, *_) = address_of(shards).folder, shard_names(tiny_shards)
    server.write(f"{folder}/{first}", b"short")
    with pytest.raises(UserError, match=rf"^{shards}/{first} has 5 bytes instead of \d+"):
        ensure_shards(tiny_config(shards))
    server.write(f"{folder}/{first}", (tiny_shards / first).read_bytes())
    server.delete(f"{folder}/{second}")
    with pytest.raises(UserError, match=rf"^{shards}/{second} is missing"):
        ensure_shards(tiny_config(shards))
    with pytest.raises(UserError, match=rf"gs://{BUCKET}/nothing holds no shards .*prepare them with"):
        ensure_shards(tiny_config(f"gs://{BUCKET}/nothing"))


@pytest.mark.subprocess
def test_a_server_that_is_gone_ends_the_reader_with_75(gcs, shards, monkeypatch):
    _, proxy = gcs
    monkeypatch.setenv(connection.WAIT, "0.3")
    proxy.fail("503", matches=lambda method, path: "array_record" in path and "alt=media" in path)
    with pytest.raises(UserError, match=r"could not be reached for") as error:
        next(
            PairStream(
                open_split(ensure_shards(tiny_config(shards)), "train"), batch_size=8, seed=0, repeats=4
            ).batches()
        )
    assert error.value.status == 75


@pytest.mark.subprocess
def test_the_cache_is_bounded_and_what_was_not_used_for_longest_goes(gcs, shards, tiny_shards, monkeypatch):
    server, _ = gcs
    folder = ensure_shards(tiny_config(shards))
    cache = shard_cache.fetching(folder)
    cache.wait_for_all()
    size = sum((tiny_shards / name).stat().st_size for name in shard_names(tiny_shards))
    server.put_folder(tiny_shards, "bounded/other")
    monkeypatch.setenv(shard_cache.LIMIT_VARIABLE, str(1.5 * size / 1e9))
    other = ensure_shards(tiny_config(f"gs://{BUCKET}/bounded/other"))
    assert folder.exists()  # another process may read it
    cache._used.close()
    shard_cache.fetching(other).wait_for_all()
    server.put_folder(tiny_shards, "bounded/third")
    third = ensure_shards(tiny_config(f"gs://{BUCKET}/bounded/third"))
    assert not folder.exists()
    assert third.exists()
    shard_cache._fetching.clear()
    monkeypatch.setenv(shard_cache.LIMIT_VARIABLE, str(0.5 * size / 1e9))
    server.put_folder(tiny_shards, "bounded/fourth")
    with pytest.raises(UserError, match=rf"more than the .* GB of the cache: set {shard_cache.LIMIT_VARIABLE} higher"):
        ensure_shards(tiny_config(f"gs://{BUCKET}/bounded/fourth"))


@pytest.fixture
def videos(tiny_shards):
    return tiny_shards.with_name("shards-videos")


def run_prepare(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["prepare", *map(str, arguments)])
    return prepare.main()


@pytest.mark.subprocess
def test_prepare_writes_to_a_bucket_and_inspect_reads_there(gcs, videos, tiny_shards, tmp_path, monkeypatch, capsys):
    server, proxy = gcs
    output = f"gs://{BUCKET}/prepared/shards"
    arguments = [f"--input={videos}", f"--output={output}", "--size=32", "--encoding=png", "--workers=1"]
    proxy.fail("503", matches=lambda method, path: "clips.json" in path)  # killed before the last object
    monkeypatch.setenv(connection.WAIT, "0.2")
    with pytest.raises(UserError, match="could not be reached"):
        run_prepare(monkeypatch, *arguments)
    assert "clips.json" not in server.names("prepared/shards/")
    proxy.fail(None)
    proxy.seen.clear()
    run_prepare(monkeypatch, *arguments)
    assert f"wrote {output}" in capsys.readouterr().out
    assert not [path for method, path in proxy.seen if method == "POST" and "array_record" in path]  # uploaded before
    for name in (*shard_names(tiny_shards), "clips.json"):
        assert server.read(f"prepared/shards/{name}") == (tiny_shards / name).read_bytes()
    assert not any((tmp_path / "bucket-cache" / "prepared").iterdir())
    with pytest.raises(UserError, match=rf"^{output} already exists; .* --overwrite"):
        run_prepare(monkeypatch, *arguments)
    with pytest.raises(UserError, match="cannot be shared by workers"):
        run_prepare(monkeypatch, *arguments, "--worker=0/2")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["inspect", output, "--verify"])
    assert inspect.main() == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{output}: ")
    assert "frames are as they were written" in printed
    assert (tmp_path / "shards-contact.png").is_file()
