"""Are objects read and written atomically whatever the server does, and what is reported if it stays unreachable?"""

import sys
import time

import pytest
from gcs_server import BUCKET

from maskanim_jax.buckets import connection
from maskanim_jax.buckets.address import Address, address_of, shown
from maskanim_jax.buckets.client import AlreadyExists, Bucket, in_parallel
from maskanim_jax.errors import UserError, run_main

FAULTS = ("503", "drop", "cut", "hang")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(connection, "MIN_DELAY", 0.01)
    monkeypatch.setattr(connection, "TIMEOUT", (5.0, 0.3))


def test_addresses_are_known_in_both_forms_and_local_paths_are_none():
    assert address_of("gs://bucket/a/b/") == address_of("gs:/bucket/a/b") == Address("bucket", "a/b")
    assert address_of("runs/gs") is None
    assert address_of(None) is None
    assert shown("gs:/bucket/a") == str(Address("bucket", "") / "a") == "gs://bucket/a"
    for wrong in ("gs://", "gs://B", "gs://bucket/../other"):
        with pytest.raises(UserError, match=r"give gs://BUCKET/FOLDER"):
            address_of(wrong)


@pytest.mark.subprocess
def test_objects_are_what_was_written(gcs, tmp_path):
    bucket = Bucket(BUCKET)
    bucket.upload("client/é b/+%.txt", b"hello")
    bucket.upload("client/empty", b"")
    large = tmp_path / "large"
    large.write_bytes(bytes(range(256)) * (40 << 10))  # is not read as a whole
    bucket.upload("client/large", large)
    found = bucket.list("client/")
    assert {name: stored.size for name, stored in found.items()} == {
        "client/é b/+%.txt": 5, "client/empty": 0, "client/large": 10 << 20,
    }  # fmt: skip
    assert bucket.read("client/é b/+%.txt") == b"hello"
    assert bucket.read("client/none") is None
    for name, stored in found.items():
        bucket.download(name, tmp_path / "got", stored)
        assert (tmp_path / "got").stat().st_size == stored.size
    bucket.copy("client/é b/+%.txt", "client/copy")
    bucket.delete("client/é b/+%.txt")
    bucket.delete("client/é b/+%.txt")
    assert set(bucket.list("client/")) == {"client/copy", "client/empty", "client/large"}


@pytest.mark.subprocess
def test_an_object_that_shall_be_new_replaces_none(gcs):
    bucket = Bucket(BUCKET)
    bucket.upload("client/new", b"first", if_absent=True)
    with pytest.raises(AlreadyExists):
        bucket.upload("client/new", b"second", if_absent=True)
    assert bucket.read("client/new") == b"first"


@pytest.mark.subprocess
@pytest.mark.parametrize("fault", FAULTS)
def test_what_fails_for_a_while_is_done_in_the_end(gcs, tmp_path, fault):
    server, proxy = gcs
    proxy.hang = 1.0
    bucket = Bucket(BUCKET)
    proxy.fail(fault, times=2)
    stored = bucket.upload(f"client/{fault}", b"0123456789" * 1000)
    proxy.fail(fault, times=2)
    assert f"client/{fault}" in bucket.list("client/")
    proxy.fail(fault, times=2)
    bucket.download(f"client/{fault}", tmp_path / "got", stored)
    assert (tmp_path / "got").read_bytes() == server.read(f"client/{fault}") == b"0123456789" * 1000
    assert [path.name for path in tmp_path.glob("*got*")] == ["got"]


@pytest.mark.subprocess
def test_an_outage_is_announced_once_and_so_is_its_end(gcs, monkeypatch, capsys):
    _, proxy = gcs
    bucket = Bucket(BUCKET)
    proxy.fail("503", times=3)
    bucket.upload("client/short", b"content")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(connection, "NOTICE_S", 0.0)
    proxy.fail("503", times=3)
    bucket.upload("client/long", b"content")
    assert bucket.read("client/long") == b"content"
    begin, end = capsys.readouterr().err.splitlines()
    assert begin == f"gs://{BUCKET} cannot be reached (the server answers 503): retrying for up to 60 s"
    assert end.startswith(f"gs://{BUCKET} answers again after 0 s")


@pytest.mark.subprocess
def test_a_download_is_resumed_where_it_was_cut_off(gcs, tmp_path, monkeypatch):
    _, proxy = gcs
    stored = Bucket(BUCKET).upload("client/resumed", bytes(5 << 20))
    counted = []
    proxy.fail("cut", times=1)
    Bucket(BUCKET).download("client/resumed", tmp_path / "got", stored, counted.append)
    assert sum(counted) == 5 << 20  # nothing twice
    assert (tmp_path / "got").read_bytes() == bytes(5 << 20)


@pytest.mark.subprocess
def test_what_is_asked_after_the_patience_fails_sooner_and_names_the_whole_time(gcs, monkeypatch):
    _, proxy = gcs
    monkeypatch.setenv(connection.WAIT, "1")
    monkeypatch.setattr(connection, "_AFTER_FAILURE", 0.05)
    bucket = Bucket(BUCKET)
    proxy.fail("503")
    with pytest.raises(UserError, match="could not be reached for 1 s"):
        bucket.list("client/")
    with pytest.raises(UserError, match="could not be reached for 1 s"):
        bucket.read("client/new")


def test_of_calls_in_parallel_those_that_have_not_begun_when_one_fails_are_left_out():
    begun = []

    def fail():
        raise UserError("the first")

    def late():
        begun.append(1)
        time.sleep(0.02)

    with pytest.raises(UserError, match="the first"):
        in_parallel([fail, *[late] * 200], workers=2)
    assert len(begun) < 200


@pytest.mark.subprocess
@pytest.mark.parametrize("fault", FAULTS)
def test_after_the_patience_it_is_one_sentence_and_status_75(gcs, monkeypatch, capsys, fault):
    _, proxy = gcs
    monkeypatch.setenv(connection.WAIT, "0.5")
    bucket = Bucket(BUCKET)
    proxy.fail(fault)
    with pytest.raises(SystemExit) as ended:
        run_main(lambda: bucket.list("client/") and None)
    assert ended.value.code == 75
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert said.startswith(f"error: gs://{BUCKET} could not be reached for 0 s (") or "for 1 s (" in said
    proxy.fail(None)
    assert "client/none" not in bucket.list("client/")  # it is asked again


@pytest.mark.subprocess
def test_a_bucket_that_is_not_there_is_named(gcs):
    for act in (lambda b: b.list(""), lambda b: b.upload("x", b"")):
        with pytest.raises(UserError, match=r"^the bucket gs://no-such-bucket does not exist: create it with") as error:
            act(Bucket("no-such-bucket"))
        assert error.value.status == 2


def test_without_credentials_or_the_extra_it_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.delenv(connection.EMULATOR, raising=False)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    pytest.importorskip("google.auth", reason="needs the extra gcs")
    with pytest.raises(UserError, match=r"needs Google Cloud credentials, .*gcloud auth application-default login"):
        Bucket("some-bucket")
    monkeypatch.setitem(sys.modules, "google.auth", None)
    with pytest.raises(UserError, match=r"needs the extra gcs: .*maskanim_jax\[gcs\]"):
        Bucket("some-bucket")


def test_an_impossible_patience_is_refused(monkeypatch):
    monkeypatch.setenv(connection.WAIT, "soon")
    with pytest.raises(UserError, match=r"MASKANIM_BUCKET_WAIT=soon must be a number of seconds from 0 to 86400"):
        connection.patience()
