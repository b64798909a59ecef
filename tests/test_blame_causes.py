"""Failures to connect are told by their root cause, through httpx and through the pool below it."""

from __future__ import annotations

import socket
import threading
from typing import Any

import httpcore
import httpcore2
import httpx
import httpx2
import pytest

from watchkeep import blame, names

NOWHERE = "http://nowhere.invalid/"
REFUSED = "http://127.0.0.1:1/"


def get(library: Any, url: str) -> Any:
    return library.get(url) if hasattr(library, "get") else library.ConnectionPool().request("GET", url)


@pytest.mark.parametrize("library", [httpx, httpx2, httpcore, httpcore2])
@pytest.mark.parametrize(("url", "expected"), [(NOWHERE, names.DNS_FAILURE), (REFUSED, "ConnectError")])
def test_no_connection(library: Any, url: str, expected: str) -> None:
    """A name that nobody knows is a DNS failure, a closed port a failed connection; both are the network's."""
    with pytest.raises(Exception) as raised:
        get(library, url)
    assert blame.of_exception(raised.value) == (expected, names.NETWORK)


@pytest.mark.parametrize("library", [httpx, httpx2, httpcore, httpcore2])
def test_no_tls(library: Any) -> None:
    """A server that does not speak TLS is a TLS failure, the network's."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Exception) as raised:
            get(library, f"https://127.0.0.1:{server.getsockname()[1]}/")
        thread.join(5)
    assert blame.of_exception(raised.value) == (names.TLS_FAILURE, names.NETWORK)
