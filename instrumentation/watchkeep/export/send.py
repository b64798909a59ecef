"""One request over HTTP, within a deadline: standard library only, no redirects, no retry.

`http.client` reads the answer; the rest is done here, because its timeouts start anew with each byte,
and a receiver that drips must not hold the worker for longer than the deadline says.
"""

from __future__ import annotations

import io
import socket
import time
import zlib
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from watchkeep.export.proxy import Proxy, basic, may_have_proxy, proxy_for
from watchkeep.version import __version__

if TYPE_CHECKING:
    import ssl
    from http.client import HTTPResponse

    from watchkeep.export.settings import Target

MAX_REPLY = 65536
_RETRYABLE = frozenset((429, 502, 503, 504))
_SPLITTABLE = frozenset((400, 413))
_LEAST = 0.001  # a timeout of 0 would mean "do not wait at all" to a socket


@dataclass(slots=True)
class Reply:
    """What came of one request: a status, or the class of the error that prevented one."""

    status: int = 0
    body: bytes = b""
    retry_after: float | None = None
    error: str = ""  # as in error.type: the status or the class

    @property
    def delivered(self) -> bool:
        """Tell whether the receiver took it."""
        return 200 <= self.status < 300

    @property
    def retryable(self) -> bool:
        """Tell whether the same bytes may succeed later."""
        return self.status == 0 or self.status in _RETRYABLE

    @property
    def splittable(self) -> bool:
        """Tell whether one item may be the reason, or the size."""
        return self.status in _SPLITTABLE


class HttpSender:
    """Sends to one end point over one connection that is kept open."""

    def __init__(self, target: Target) -> None:
        self.target = target
        parts = urlsplit(target.endpoint)
        self.secure = parts.scheme == "https"
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if self.secure else 80)
        self.path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = _head(target, parts.netloc.rpartition("@")[2], parts.username, parts.password)
        self._socket: socket.socket | None = None
        self._proxy: Proxy | None = None
        self._context: ssl.SSLContext | None = None
        self._aborted = False

    def prepare(self) -> None:
        """Import what a request needs: at the exit it would be late, and change the exit code of a Ctrl-C.

        (CPython forgets an unhandled KeyboardInterrupt when anything calls `exec` after it, as named tuples do.)
        """
        needed = ["email.utils", "http.client", "select"]
        needed += ["ssl"] if self.secure else []
        needed += ["urllib.request"] if may_have_proxy() else []
        for name in needed:
            import_module(name)

    def send(self, body: bytes, deadline: float) -> Reply:
        """POST `body`; never raises for what the network does."""
        encoded = _compressed(body, self.target.compression)
        self._aborted = False
        reused = self._ready()
        reply = self._try(encoded, deadline)
        if reply.error in _STALE and reused and not self._aborted:
            reply = self._try(encoded, deadline)  # the server had closed an idle connection: not its fault
        return reply

    def close(self) -> None:
        """Close the connection."""
        opened, self._socket = self._socket, None
        if opened is not None:
            try:
                opened.close()
            except OSError:
                return

    def abort(self) -> None:
        """End a request that another thread is waiting for."""
        self._aborted = True
        opened = self._socket
        if opened is not None:
            try:
                socket.socket.shutdown(opened, socket.SHUT_RDWR)
            except OSError:
                return

    def _ready(self) -> bool:
        """Tell whether a connection is open and its server has not closed it meanwhile."""
        if self._socket is None:
            return False
        import select

        waiting = getattr(select, "poll", None)
        if waiting is not None:
            poll = waiting()
            poll.register(self._socket.fileno(), select.POLLIN)
            if poll.poll(0):
                self.close()
                return False
        return True

    def _try(self, body: bytes, deadline: float) -> Reply:
        import http.client

        try:
            return self._exchange(body, deadline)
        except (OSError, http.client.HTTPException, ValueError, EOFError, MemoryError) as error:
            self.close()
            return Reply(error=_named(error))

    def _exchange(self, body: bytes, deadline: float) -> Reply:
        if self._socket is None:
            self._socket = self._connect(deadline)
        opened = self._socket
        head = f"POST {self._where()} HTTP/1.1\r\n{self._headers}{self._to_proxy()}Content-Length: {len(body)}\r\n\r\n"
        opened.settimeout(_left(deadline))
        opened.sendall(head.encode("utf-8") + body)
        return self._read(opened, deadline)

    def _where(self) -> str:
        """Name the path; to a proxy, in plain HTTP, the whole URL."""
        plain = self._proxy is not None and not self.secure
        return f"http://{_bracketed(self.host)}:{self.port}{self.path}" if plain else self.path

    def _to_proxy(self) -> str:
        if self._proxy is None or self.secure or not self._proxy.authorization:
            return ""
        return f"Proxy-Authorization: {self._proxy.authorization}\r\n"

    def _read(self, opened: socket.socket, deadline: float) -> Reply:
        response = _response(opened, deadline)
        body = response.read(MAX_REPLY)
        whole = not response.read(1)
        if response.will_close or not whole:
            self.close()
        response.close()
        status = response.status
        delivered = 200 <= status < 300
        if not delivered:
            body = b""
        wait = retry_after(response.headers.get("Retry-After"))
        return Reply(status, body, wait, "" if delivered else str(status))

    def _connect(self, deadline: float) -> socket.socket:
        self._proxy = proxy_for("https" if self.secure else "http", self.host, self.port)
        near = (self._proxy.host, self._proxy.port) if self._proxy else (self.host, self.port)
        opened = _dial(near[0], near[1], deadline)
        self._socket = opened  # so that abort() finds it while TLS or the proxy is slow
        if self.secure:
            if self._proxy:
                self._tunnel(opened, self._proxy, deadline)
            opened = self._encrypt(opened, deadline)
        return opened

    def _tunnel(self, opened: socket.socket, proxy: Proxy, deadline: float) -> None:
        known = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
        far = f"{_bracketed(self.host)}:{self.port}"
        opened.settimeout(_left(deadline))
        opened.sendall(f"CONNECT {far} HTTP/1.1\r\nHost: {far}\r\n{known}\r\n".encode())
        response = _response(opened, deadline, method="CONNECT")
        if response.status != 200:
            raise ConnectionRefusedError(f"the proxy answers {response.status}")

    def _encrypt(self, opened: socket.socket, deadline: float) -> socket.socket:
        if self._context is None:
            self._context = _tls(self.target)
        opened.settimeout(_left(deadline))
        return self._context.wrap_socket(opened, server_hostname=self.host)


_STALE = frozenset(("RemoteDisconnected", "ConnectionResetError", "BrokenPipeError", "ConnectionAbortedError"))


def _named(error: BaseException) -> str:
    return "timeout" if isinstance(error, TimeoutError) else type(error).__name__


def _head(target: Target, netloc: str, user: str | None, password: str | None) -> str:
    """Make the headers that every request carries; the user's own go before ours."""
    lines = {
        "host": netloc,
        "user-agent": f"watchkeep/{__version__}",
        "content-type": "application/x-protobuf",
        "accept-encoding": "identity",
    }
    if user:
        lines["authorization"] = basic(user, password or "")
    if target.compression != "none":
        lines["content-encoding"] = target.compression
    lines |= dict(target.headers)
    return "".join(f"{name}: {value}\r\n" for name, value in lines.items())


def _compressed(body: bytes, how: str) -> bytes:
    if how == "gzip":
        return zlib.compress(body, 5, wbits=31)
    return zlib.compress(body, 5) if how == "deflate" else body


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return max(left, _LEAST)


def _dial(host: str, port: int, deadline: float) -> socket.socket:
    """Connect to the first address that answers; all of them share the deadline."""
    last: OSError | None = None
    for family, kind, proto, _, address in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
        opened = None
        try:
            opened = socket.socket(family, kind, proto)
            opened.settimeout(_left(deadline))
            opened.connect(address)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return opened
        except OSError as error:
            last = error
            if opened is not None:
                opened.close()
    raise last or OSError("no address")


def _tls(target: Target) -> ssl.SSLContext:
    import ssl

    context = ssl.create_default_context(cafile=target.certificate)
    if target.client_certificate:
        context.load_cert_chain(target.client_certificate, target.client_key)
    return context


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _Reader(io.RawIOBase):
    """Reads a socket, each time with what is left of the deadline."""

    def __init__(self, opened: socket.socket, deadline: float) -> None:
        self.opened = opened
        self.deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.opened.settimeout(_left(self.deadline))
        return self.opened.recv_into(buffer)


class _Answer:
    """As much of a socket as HTTPResponse asks for."""

    def __init__(self, reader: _Reader) -> None:
        self.reader = reader

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self.reader)


def _response(opened: socket.socket, deadline: float, method: str = "POST") -> HTTPResponse:
    from http.client import HTTPResponse

    response = HTTPResponse(cast("socket.socket", _Answer(_Reader(opened, deadline))), method=method)
    response.begin()
    return response


def retry_after(value: str | None) -> float | None:
    """Read Retry-After: seconds, or a date."""
    if not value:
        return None
    try:
        return max(0.0, float(int(value.strip()[:9])))
    except ValueError:
        return _until(value)


def _until(value: str) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(value[:64]).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
