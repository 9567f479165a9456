"""How are objects in a bucket listed, read and written atomically?

With Google Cloud Storage's JSON API.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from maskanim_jax.buckets import connection
from maskanim_jax.buckets.connection import RETRIED, Connection, Deadline, TryAgain
from maskanim_jax.errors import UserError

_IN_MEMORY = 8 << 20
_CHUNK = 1 << 20


class AlreadyExists(Exception):
    """An object that should have been new already exists."""


class Stored(NamedTuple):
    """The bucket's metadata of an object."""

    size: int
    md5: str
    """In base64; "" if the bucket has none (for composed objects)."""
    generation: str
    """Changes with each write."""
    age: float
    """Seconds since the last write, by the server's clock."""


class Bucket:
    """One bucket; threads may share it.

    Methods raise UserError for a bucket that is missing or refuses the
    credentials, and BucketUnreachable.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._connection = Connection(name)

    def list(self, prefix: str) -> dict[str, Stored]:
        """All objects whose names start with `prefix`, by name."""
        found: dict[str, Stored] = {}
        token = ""
        while True:
            query = {"prefix": prefix, "fields": "nextPageToken,items(name,size,md5Hash,generation,updated)"}
            page, now = self._json("GET", f"b/{self.name}/o", params=query | ({"pageToken": token} if token else {}))
            found |= {item["name"]: _stored(item, now) for item in page.get("items", ())}
            if not (token := page.get("nextPageToken", "")):
                return found

    def read(self, name: str) -> bytes | None:
        """The content of a small object; None if it does not exist."""

        def attempt(_: Deadline) -> bytes | None:
            answer = self._send("GET", self._object(name), params={"alt": "media"}, may_lack=True)
            return None if answer is None else answer.content

        return self._connection.patiently(f"gs://{self.name}/{name}", attempt)

    def download(self, name: str, path: Path, stored: Stored, progress: Callable[[int], object] | None = None) -> None:
        """Downloads an object to `path`, which appears only when it is complete
        and has the bucket's hash.

        An interrupted download is resumed, also by another process. `progress` is called with
        numbers of bytes. Raises UserError if the object is gone or repeatedly arrives with another
        hash, and OSError for the disk.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        tag = hashlib.sha256(f"{stored.md5}{stored.generation}".encode()).hexdigest()[:12]
        part = path.with_name(f".{path.name}.{tag}.part")  # only of this version of the object
        count = progress or (lambda _: None)
        if part.exists():
            count(part.stat().st_size)

        def attempt(deadline: Deadline) -> None:
            offset = part.stat().st_size if part.exists() else 0
            if offset < stored.size or not part.exists():
                self._receive(name, part, offset, deadline, count)
            if part.stat().st_size != stored.size or (stored.md5 and _md5(part) != stored.md5):
                count(-part.stat().st_size)
                part.unlink()
                raise TryAgain("the received data differs from the bucket's")

        self._connection.patiently(f"gs://{self.name}/{name}", attempt)
        os.replace(part, path)

    def _receive(self, name: str, part: Path, offset: int, deadline: Deadline, count: Callable[[int], object]) -> None:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        answer = self._send("GET", self._object(name), params={"alt": "media"}, headers=headers, stream=True)
        with answer, part.open("ab" if answer.status_code == 206 else "wb") as file:
            if answer.status_code != 206:
                count(-offset)
            for chunk in answer.iter_content(_CHUNK):
                file.write(chunk)
                count(len(chunk))
                deadline.extend()

    def upload(self, name: str, source: bytes | Path, if_absent: bool = False) -> Stored:
        """Writes an object atomically and compares the bucket's hash of it with the local one.

        With `if_absent` (for content in memory), raises AlreadyExists instead of replacing an
        object. Raises OSError for the disk.
        """
        if isinstance(source, Path) and source.stat().st_size <= _IN_MEMORY:
            source = source.read_bytes()
        md5 = _md5(source)

        def attempt(_: Deadline) -> Stored:
            if isinstance(source, bytes):
                stored = self._send_whole(name, source, if_absent)
            else:
                with source.open("rb") as file:
                    stored = self._send_whole(name, file, if_absent)
            if stored.md5 and stored.md5 != md5:
                raise TryAgain("the bucket received different data than was sent")
            return stored

        return self._connection.patiently(f"gs://{self.name}/{name}", attempt)

    def _send_whole(self, name: str, body: Any, if_absent: bool) -> Stored:
        url = f"{self._connection.server}/upload/storage/v1/b/{self.name}/o"
        if not if_absent:
            answer = self._send("POST", url, params={"uploadType": "media", "name": name}, data=body)
        else:  # conditions need the upload with metadata: the test server supports them only there
            line = uuid.uuid4().hex
            head = f"--{line}\nContent-Type: application/json; charset=UTF-8\n\n{json.dumps({'name': name})}\n"
            head += f"--{line}\nContent-Type: application/octet-stream\n\n"
            answer = self._send(
                "POST",
                url,
                params={"uploadType": "multipart", "ifGenerationMatch": "0"},
                headers={"Content-Type": f'multipart/related; boundary="{line}"'},
                data=head.encode() + body + f"\n--{line}--".encode(),
            )
        return _stored(answer.json(), None)

    def delete(self, name: str) -> None:
        """Removes an object if it exists."""
        self._connection.patiently(
            f"gs://{self.name}/{name}", lambda _: self._send("DELETE", self._object(name), may_lack=True) and None
        )

    def copy(self, name: str, to: str) -> None:
        """Copies an object within the bucket, without downloading it."""
        url = f"{self._object(name)}/rewriteTo/b/{self.name}/o/{quote(to, safe='')}"
        query: dict[str, str] = {}
        while True:
            answer, _ = self._json("POST", url, params=query)
            if answer.get("done", True):
                return
            query = {"rewriteToken": answer["rewriteToken"]}

    # -- requests -------------------------------------------------------------------------------------------------------------------------

    def _object(self, name: str) -> str:
        return f"{self._connection.server}/storage/v1/b/{self.name}/o/{quote(name, safe='')}"

    def _json(self, method: str, path: str, **options: Any) -> tuple[dict[str, Any], float | None]:
        """The value of an answer, and the server's time."""
        url = path if path.startswith("http") else f"{self._connection.server}/storage/v1/{path}"

        def attempt(_: Deadline) -> tuple[dict[str, Any], float | None]:
            answer = self._send(method, url, **options)
            date = answer.headers.get("Date")
            return answer.json(), parsedate_to_datetime(date).timestamp() if date else None

        return self._connection.patiently(f"gs://{self.name}", attempt)

    def _send(self, method: str, url: str, may_lack: bool = False, **options: Any) -> Any:
        """Makes one request and returns the answer; None if the object is missing and `may_lack`.

        Raises TryAgain, AlreadyExists, UserError.
        """
        answer = self._connection.session().request(method, url, timeout=connection.TIMEOUT, **options)
        code = answer.status_code
        if code < 300:
            return answer
        if code in RETRIED:
            answer.close()
            raise TryAgain(f"the server answers {code}")
        if code == 412:
            raise AlreadyExists(url)
        about_object = "/o/" in url
        if code == 404 and may_lack:
            return None
        if code == 404 and about_object:
            raise UserError(f"{_readable(url)} in the bucket gs://{self.name} no longer exists: start again")
        if code == 404:
            raise UserError(
                f"the bucket gs://{self.name} does not exist: create it with `gcloud storage buckets create gs://{self.name}`, "
                "or give another"
            )
        if code in (401, 403):
            raise UserError(
                f"gs://{self.name} refuses these credentials ({code}): log in with `gcloud auth application-default login` as a user "
                "who may read and write objects there"
            )
        raise UserError(f"gs://{self.name} refuses a request ({code}: {answer.text[:200]}): check the address")


def _stored(item: dict[str, Any], now: float | None) -> Stored:
    age = 0.0
    if now is not None and (updated := item.get("updated")):
        from datetime import datetime

        age = now - datetime.fromisoformat(updated.replace("Z", "+00:00")).timestamp()
    return Stored(int(item.get("size", 0)), item.get("md5Hash", ""), str(item.get("generation", "")), age)


def _readable(url: str) -> str:
    from urllib.parse import unquote

    return unquote(url.rpartition("/o/")[2])


def _md5(source: bytes | Path) -> str:
    """The MD5 in the bucket's form, only for comparison with the bucket's; SHA-256 protects data
    that must not be forged.
    """
    if isinstance(source, bytes):
        digest = hashlib.md5(source, usedforsecurity=False)
    else:
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return base64.b64encode(digest.digest()).decode()


md5_of = _md5


def in_parallel(calls: Iterator[Callable[[], object]], workers: int = 8) -> None:
    """Makes all calls, several at a time.

    After a failure, calls that have not begun are omitted; the first error is raised once the
    others have ended.
    """
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(workers, thread_name_prefix="bucket") as pool:
        submitted = [pool.submit(call) for call in calls]
        try:
            for done in submitted:
                done.result()
        except BaseException:
            for waiting in submitted:
                waiting.cancel()
            raise
