"""How is a bucket's server reached, with which credentials, and how long are requests retried?

After an answer such as 503, a timeout or a dropped connection, a request is retried with
exponential backoff for MASKANIM_BUCKET_WAIT seconds. Then `BucketUnreachable` ends the command with
status 75, "start me again".
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from maskanim_jax.buckets.address import Address
from maskanim_jax.errors import RESTART, UserError
from maskanim_jax.utils.cache import default_cache
from maskanim_jax.utils.environment import seconds_of

WAIT = "MASKANIM_BUCKET_WAIT"
"""Environment variable: how many seconds to wait for an unreachable bucket (default 300)."""
CACHE = "MASKANIM_BUCKET_CACHE"
"""Environment variable: folder for local copies of buckets' contents."""
EMULATOR = "STORAGE_EMULATOR_HOST"
"""Environment variable: address of a test server, which needs no credentials."""
TIMEOUT = (10.0, 30.0)
"""Time limit in seconds to connect, and between two parts of an answer."""
MIN_DELAY, MAX_DELAY = 0.25, 15.0
"""Seconds before the first retry, and the longest time between two."""
_AFTER_FAILURE = 5.0
"""Seconds to wait after the bucket was given up, so that the command's last writes
do not wait as long again.
"""
NOTICE_S = 5.0
"""An outage is announced when it has lasted this many seconds."""
RETRIED = (408, 429, 500, 502, 503, 504)
_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
Result = TypeVar("Result")


class BucketUnreachable(UserError):
    """The network or the server does not answer. The run is intact: the same command resumes it."""

    status = RESTART


class TryAgain(Exception):
    """An answer that may change later, described by the text."""


class Deadline:
    """The time limit of retries."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.extend()

    def extend(self) -> None:
        """Restarts the time limit, since data was received."""
        self._end = time.monotonic() + self.seconds

    def passes_within(self, seconds: float) -> bool:
        return time.monotonic() + seconds > self._end


class Outage:
    """Reports an outage once, and its end; threads may share it."""

    def __init__(self, bucket: str) -> None:
        self._bucket, self._lock = bucket, threading.Lock()
        self._since: float | None = None
        self._announced = False

    def failed(self, reason: str, seconds: float) -> None:
        """Notes a failed request, which is retried for `seconds`."""
        with self._lock:
            if self._since is None:
                self._since = time.monotonic()
            if not self._announced and time.monotonic() - self._since >= NOTICE_S:
                self._announced = True
                _say(f"gs://{self._bucket} cannot be reached ({reason}): retrying for up to {seconds:.0f} s")

    def answered(self) -> None:
        """Notes a successful request."""
        with self._lock:
            if self._announced and self._since is not None:
                _say(f"gs://{self._bucket} answers again after {time.monotonic() - self._since:.0f} s")
            self._since, self._announced = None, False


class Connection:
    """The connection to one bucket; threads may share it.

    Raises UserError without credentials or the extra.
    """

    def __init__(self, bucket: str) -> None:
        self.server = _server()
        self._local = threading.local()
        self._given_up = 0.0  # after how many seconds; 0 while it is not
        self._outage = Outage(bucket)
        self._credentials = None if os.environ.get(EMULATOR) else _credentials(bucket)

    def session(self) -> Any:
        """This thread's HTTP session."""
        if not hasattr(self._local, "session"):
            if self._credentials is None:
                import requests

                self._local.session = requests.Session()
                self._local.session.trust_env = False  # tests reach their server without a proxy
            else:
                from google.auth.transport.requests import AuthorizedSession

                self._local.session = AuthorizedSession(self._credentials)
        return self._local.session

    def patiently(self, what: str, attempt: Callable[[Deadline], Result]) -> Result:
        """Returns the result of `attempt`, which is retried while the network or the server fails.

        Raises BucketUnreachable.
        """
        deadline, delay = Deadline(_AFTER_FAILURE if self._given_up else patience()), MIN_DELAY
        while True:
            try:
                result = attempt(deadline)
                self._given_up = 0.0
                self._outage.answered()
                return result
            except TryAgain as error:
                reason = str(error)
            except _network_errors() as error:
                reason = f"{type(error).__name__}: {error}"[:200]
            except _credential_errors() as error:
                raise UserError(
                    f"{what}: the credentials are not valid ({str(error)[:200]}): log in with `gcloud auth application-default login`"
                ) from error
            wait = delay * random.uniform(0.5, 1.0)
            if deadline.passes_within(wait):
                self._given_up = max(self._given_up, deadline.seconds)
                raise BucketUnreachable(
                    f"{what} could not be reached for {self._given_up:.0f} s ({reason}): run the same command again when it can; a run "
                    "resumes from its newest checkpoint"
                )
            self._outage.failed(reason, deadline.seconds)
            time.sleep(wait)
            delay = min(2 * delay, MAX_DELAY)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def cache_folder() -> Path:
    """The folder of local copies of runs and shards:
    `$MASKANIM_BUCKET_CACHE`, else `buckets` in the project's cache.
    """
    return Path(os.environ.get(CACHE) or default_cache() / "buckets")


def cache_name(address: Address, *more: object) -> str:
    """A unique folder name in the cache for an address and whatever else distinguishes its content.

    It has no [ and *, which some readers take for patterns.
    """
    digest = hashlib.sha256(repr([os.environ.get(EMULATOR), str(address), *more]).encode()).hexdigest()[:16]
    return f"{re.sub('[^A-Za-z0-9._-]', '_', Path(address.folder or address.bucket).name)[:60]}-{digest}"


def patience() -> float:
    """How many seconds to wait for an unreachable bucket.

    Raises UserError for an invalid setting.
    """
    return seconds_of(WAIT, 300.0)


def _server() -> str:
    address = os.environ.get(EMULATOR, "")
    if not address:
        return "https://storage.googleapis.com"
    return (address if "://" in address else f"http://{address}").rstrip("/")


def _credentials(bucket: str) -> Any:
    """The application default credentials.

    Raises UserError if there are none, or without the extra.
    """
    try:
        import google.auth
        import google.auth.exceptions
        import google.auth.transport.requests
    except ImportError as error:
        raise UserError(
            f"gs://{bucket} needs the extra gcs: install it with `pip install 'maskanim_jax[gcs]'`"
        ) from error
    logging.getLogger("google.auth").setLevel(logging.ERROR)  # its warning would repeat the message below
    try:
        return google.auth.default(scopes=[_SCOPE])[0]
    except google.auth.exceptions.GoogleAuthError as error:
        raise UserError(
            f"gs://{bucket} needs Google Cloud credentials, but there are none on this machine: log in with `gcloud auth application-default login`, "
            "or set GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account"
        ) from error


@functools.cache
def _network_errors() -> tuple[type[BaseException], ...]:
    import requests

    errors: tuple[type[BaseException], ...] = (
        requests.exceptions.ConnectionError,
        requests.exceptions.Timeout,
        requests.exceptions.ChunkedEncodingError,
        requests.exceptions.ContentDecodingError,
        requests.exceptions.JSONDecodeError,
    )
    try:
        from google.auth.exceptions import TransportError
    except ImportError:
        return errors
    return (*errors, TransportError)


@functools.cache
def _credential_errors() -> tuple[type[BaseException], ...]:
    try:
        from google.auth.exceptions import GoogleAuthError
    except ImportError:
        return ()
    return (GoogleAuthError,)
