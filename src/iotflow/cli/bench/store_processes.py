"""Which processes of this machine are the stores: who listens where their URLs point."""

import socket
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from urllib.parse import urlsplit

from iotflow.stores.urls import split_url

_PROC = Path("/proc")
_LISTENING = "0A"
_DEFAULT_PORTS = {
    "postgresql": 5432,
    "cassandra": 9042,
    "redis": 6379,
    "redis+sentinel": 26379,
    "redis+cluster": 6379,
    "rediss": 6379,
    "mongodb": 27017,
}
_ANY = (str(IPv4Address(0)), str(IPv6Address(0)))

Address = tuple[str, int]


def store_processes(urls: Iterable[str], proc: Path = _PROC) -> dict[str, set[int]]:
    """The process ids behind store URLs, by the kind of store.

    Stores on other machines, and embedded ones, have none. A URL that several roles share counts
    once. Sentinels are what their URL names, not the servers that they watch.
    """
    listeners = _listeners(proc)
    found: dict[str, set[int]] = {}
    for url in urls:
        inodes = {inode for address in addresses(url) for inode in _at(address, listeners)}
        if inodes:
            kind = split_url(url).scheme.partition("+")[0].replace("rediss", "redis")
            found.setdefault(kind, set()).update(_owners(inodes, proc))
    return {kind: pids for kind, pids in found.items() if pids}


def addresses(url: str) -> list[Address]:
    """Where a store's URL points, as numeric addresses; none for an embedded store."""
    parts = split_url(url)
    if parts.scheme not in _DEFAULT_PORTS:
        return []
    found: list[Address] = []
    for node in parts.netloc.rpartition("@")[2].split(","):
        with suppress(OSError, ValueError):
            one = urlsplit(f"//{node}")
            port = one.port or _DEFAULT_PORTS[parts.scheme]
            resolved = socket.getaddrinfo(one.hostname, port, type=socket.SOCK_STREAM)
            found += [(str(it[4][0]), port) for it in resolved]
    return list(dict.fromkeys(found))


def _at(address: Address, listeners: Mapping[Address, str]) -> set[str]:
    host, port = address
    own = {listeners[address]} if address in listeners else set[str]()
    if not own and _is_here(host):
        own = {listeners[any_, port] for any_ in _ANY if (any_, port) in listeners}
    return own


def _is_here(host: str) -> bool:
    """Whether an address is this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((host, 0))
        return True
    return False


def _listeners(proc: Path) -> dict[Address, str]:
    """Inodes of the sockets that listen, by address and port."""
    found: dict[Address, str] = {}
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (proc / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING:
                    found[_parsed(fields[1])] = fields[9]
    return found


def _parsed(field: str) -> Address:
    """The kernel writes an address as hexadecimal words in the machine's byte order."""
    digits, _, port = field.partition(":")
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    address = ip_address(struct.pack(f"={len(words)}I", *words))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address), int(port, 16)


def _owners(inodes: set[str], proc: Path) -> set[int]:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    holders = {int(it.name) for it in proc.iterdir() if it.name.isdigit() and _holds(it, wanted)}
    # A child inherits the socket that its parent listens on; usage counts it with the parent.
    return {pid for pid in holders if _parent(proc / str(pid)) not in holders}


def _holds(process: Path, wanted: set[str]) -> bool:
    with suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):
                if str(descriptor.readlink()) in wanted:
                    return True
    return False


def _parent(process: Path) -> int:
    with suppress(OSError, IndexError, ValueError):
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return 0
