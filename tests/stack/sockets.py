"""What a process has open to the network, as Linux tells it: the local addresses that it listens on."""

from __future__ import annotations

import ipaddress
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_LISTENING = {"tcp": "0A", "udp": "07"}  # a UDP socket has no other state while it waits for anybody


def listeners(pid: int) -> set[tuple[str, int]]:
    """Return the addresses and ports that a process and its children listen on."""
    inodes = {inode for each in family(pid) for inode in _inodes(each)}
    return {(address, port) for address, port, inode in _sockets(pid) if inode in inodes}


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in task.read_text().split():
                found += family(int(child))
    return found


def _inodes(pid: int) -> Iterator[str]:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            target = os.readlink(descriptor)
            if target.startswith("socket:["):
                yield target[8:-1]


def _sockets(pid: int) -> Iterator[tuple[str, int, str]]:
    for name in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENING[name[:3]]:
                host, port = fields[1].split(":")
                yield _address(host), int(port, 16), fields[9]


def _address(text: str) -> str:
    words = [struct.pack("<I", int(text[at : at + 8], 16)) for at in range(0, len(text), 8)]
    return str(ipaddress.ip_address(b"".join(words)))
