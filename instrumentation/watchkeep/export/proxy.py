"""Which proxy stands before an end point: http_proxy, https_proxy, all_proxy and no_proxy."""

from __future__ import annotations

import os
import sys
from base64 import b64encode
from typing import NamedTuple
from urllib.parse import unquote, urlsplit


class Proxy(NamedTuple):
    """A proxy's address, and what it wants to see of us."""

    host: str
    port: int
    authorization: str = ""


def basic(user: str, password: str) -> str:
    """Make the value of an Authorization header."""
    return "Basic " + b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()


def proxy_for(scheme: str, host: str, port: int) -> Proxy | None:
    """Find the proxy for an end point, as urllib does."""
    if not may_have_proxy():
        return None
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    url = proxies.get(scheme) or proxies.get("all")
    if not url or proxy_bypass(f"{host}:{port}") or proxy_bypass(host):
        return None
    return _parsed(url)


def may_have_proxy() -> bool:
    """Importing urllib.request is dear; on Linux only the environment can name a proxy."""
    return sys.platform in ("darwin", "win32") or any(name.lower().endswith("_proxy") for name in os.environ)


def _parsed(url: str) -> Proxy | None:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    known = basic(parts.username, parts.password or "") if parts.username else ""
    return Proxy(parts.hostname, parts.port or 80, known)
