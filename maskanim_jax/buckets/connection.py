"""How is the server of a bucket reached, as whom, and for how long is it tried?

An answer such as 503, a timeout or a dropped connection is tried again with exponential backoff for MASKANIM_BUCKET_WAIT seconds; then
`BucketUnreachable` ends the command with status 75, "start me again".
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
"""Environment variable: seconds that an unreachable bucket is waited for; 300 without it."""
CACHE = "MASKANIM_BUCKET_CACHE"
"""Environment variable: a folder for what is fetched from buckets."""
EMULATOR = "STORAGE_EMULATOR_HOST"
"""Environment variable: address of a server for tests, which asks for no credentials."""
TIMEOUT = (10.0, 30.0)
"""Seconds to connect, and between two parts of an answer."""
MIN_DELAY, MAX_DELAY = 0.25, 15.0
"""Seconds before the first repetition, and at most between two."""
_AFTER_FAILURE = 5.0
"""Seconds to wait once the bucket was given up: what the end of the command still wants to write shall not wait as long again."""
NOTICE_S = 5.0
"""An outage is announced once it has lasted so many seconds."""
RETRIED = (408, 429, 500, 502, 503, 504)
_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
Result = TypeVar("Result")


class BucketUnreachable(UserError):
    """The network or the server does not answer. Nothing is wrong with the run: the same command resumes it."""

    status = RESTART


class TryAgain(Exception):
    """An answer that may be another one later; the text says which."""


class Deadline:
    """Until when something is tried again."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.extend()

    def extend(self) -> None:
        """Something was received: the time begins anew."""
        self._end = time.monotonic() + self.seconds

    def passes_within(self, seconds: float) -> bool:
        return time.monotonic() + seconds > self._end


class Outage:
    """Says once that a bucket is waited for, and once that it answers again; threads may share it."""

    def __init__(self, bucket: str) -> None:
        self._bucket, self._lock = bucket, threading.Lock()
        self._since: float | None = None
        self._announced = False

    def failed(self, reason: str, seconds: float) -> None:
        """A request failed, and is repeated for `seconds` in all."""
        with self._lock:
            if self._since is None:
                self._since = time.monotonic()
            if not self._announced and time.monotonic() - self._since >= NOTICE_S:
                self._announced = True
                _say(f"gs://{self._bucket} cannot be reached ({reason}): trying again for up to {seconds:.0f} s")

    def seconds(self) -> float:
        """How long no request has succeeded."""
        with self._lock:
            return 0.0 if self._since is None else time.monotonic() - self._since

    def answered(self) -> None:
        """A request succeeded."""
        with self._lock:
            if self._announced and self._since is not None:
                _say(f"gs://{self._bucket} answers again after {time.monotonic() - self._since:.0f} s")
            self._since, self._announced = None, False


class Connection:
    """The way to one bucket; threads may share it. Raises UserError without credentials or the extra."""

    def __init__(self, bucket: str) -> None:
        self.server = _server()
        self._local = threading.local()
        self._given_up = False
        self._outage = Outage(bucket)
        self._credentials = None if os.environ.get(EMULATOR) else _credentials(bucket)

    def session(self) -> Any:
        """This thread's connections."""
        if not hasattr(self._local, "session"):
            if self._credentials is None:
                import requests

                self._local.session = requests.Session()
                self._local.session.trust_env = False  # no proxy stands between a test and its server
            else:
                from google.auth.transport.requests import AuthorizedSession

                self._local.session = AuthorizedSession(self._credentials)
        return self._local.session

    def patiently(self, what: str, attempt: Callable[[Deadline], Result]) -> Result:
        """What `attempt` returns, tried again while the network or the server fails. Raises BucketUnreachable."""
        again = self._given_up
        deadline, delay = Deadline(_AFTER_FAILURE if again else patience()), MIN_DELAY
        while True:
            try:
                result = attempt(deadline)
                self._given_up = False
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
                self._given_up = True
                lasted = max(deadline.seconds, self._outage.seconds()) if again else deadline.seconds
                raise BucketUnreachable(
                    f"{what} cannot be reached for {lasted:.0f} s ({reason}): start the same command again when it can; a run "
                    "resumes from its newest checkpoint"
                )
            self._outage.failed(reason, deadline.seconds)
            time.sleep(wait)
            delay = min(2 * delay, MAX_DELAY)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def cache_folder() -> Path:
    """Where working copies of runs and shards are kept: `$MASKANIM_BUCKET_CACHE`, else `buckets` in the project's cache."""
    return Path(os.environ.get(CACHE) or default_cache() / "buckets")


def cache_name(address: Address, *more: object) -> str:
    """A folder's name in the cache for an address, and what else tells its content from others'. Some readers take [ and * for patterns."""
    digest = hashlib.sha256(repr([os.environ.get(EMULATOR), str(address), *more]).encode()).hexdigest()[:16]
    return f"{re.sub('[^A-Za-z0-9._-]', '_', Path(address.folder or address.bucket).name)[:60]}-{digest}"


def patience() -> float:
    """Seconds that an unreachable bucket is waited for. Raises UserError for a setting that is none."""
    return seconds_of(WAIT, 300.0)


def _server() -> str:
    address = os.environ.get(EMULATOR, "")
    if not address:
        return "https://storage.googleapis.com"
    return (address if "://" in address else f"http://{address}").rstrip("/")


def _credentials(bucket: str) -> Any:
    """The application default credentials. Raises UserError with what to do when there are none, or without the extra."""
    try:
        import google.auth
        import google.auth.exceptions
        import google.auth.transport.requests
    except ImportError as error:
        raise UserError(
            f"gs://{bucket} needs the extra gcs: install it with `pip install 'maskanim_jax[gcs]'`"
        ) from error
    logging.getLogger("google.auth").setLevel(logging.ERROR)  # it warns of what the sentence below says
    try:
        return google.auth.default(scopes=[_SCOPE])[0]
    except google.auth.exceptions.GoogleAuthError as error:
        raise UserError(
            f"gs://{bucket} needs Google Cloud credentials and there are none here: log in with `gcloud auth application-default login`, "
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
