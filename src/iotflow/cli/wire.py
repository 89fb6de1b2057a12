"""A lean HTTP/1.1 client connection for commands that send thousands of requests a second.

A general client costs about a millisecond of CPU a request, which would make the
sender the bottleneck. This one writes requests that are encoded already and reads of
an answer only what its callers use: status, Content-Length, and the bytes.
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Protocol, cast

BROKEN = 0
"""The status of a request whose connection broke before its answer was complete."""

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)
_NO_BODY = frozenset({204, 304})


def encode_request(
    method: str, target: str, host: str, headers: Mapping[str, str], body: bytes = b""
) -> bytes:
    """One request as it goes over the wire. `target` is the path with its query."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method in {"POST", "PUT", "PATCH"}:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class Listener(Protocol):
    """Who is told what becomes of a connection's requests."""

    def answered(self, connection: "WireConnection", status: int) -> None:
        """The request in flight has its whole answer, or is BROKEN."""
        ...

    def closed(self, connection: "WireConnection") -> None:
        """The connection is gone; `answered` came first if a request was in flight."""
        ...


class WireConnection(asyncio.Protocol):
    """One keep-alive connection with one request in flight at most.

    `head` and `body` are those of the last answer; `body` stays empty unless
    `keep_body`. `since` is the caller's: when the request in flight began, or was due.
    """

    def __init__(self, listener: Listener, *, keep_body: bool = False) -> None:
        self._listener = listener
        self._keep_body = keep_body
        self._transport: asyncio.Transport | None = None
        self._in_flight = False
        self._unread = b""
        self._missing: int | None = None
        self._status = BROKEN
        self._chunks: list[bytes] = []
        self.head = b""
        self.since = 0.0

    @property
    def usable(self) -> bool:
        """Whether a request can be sent now."""
        transport = self._transport
        return transport is not None and not self._in_flight and not transport.is_closing()

    @property
    def body(self) -> bytes:
        return b"".join(self._chunks)

    def send(self, request: bytes) -> None:
        """Send one request; the connection must be `usable`."""
        if self._transport is None:
            raise ConnectionError("The connection is not open.")
        self._in_flight = True
        self._transport.write(request)

    def close(self) -> None:
        """Break off at once; a request in flight becomes BROKEN."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._in_flight:
            self._finish(BROKEN)
        self._listener.closed(self)

    def data_received(self, data: bytes) -> None:
        if self._missing is None:
            self._read_head(self._unread + data if self._unread else data)
        else:
            self._read_body(data)

    def _read_head(self, data: bytes) -> None:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._unread = data
            return
        self._unread = b""
        self.head = data[:end]
        self._status = _status_of(self.head)
        self._missing = _length_of(self.head, self._status)
        self._chunks.clear()
        if self._missing is None or not self._in_flight:
            self.close()
            return
        self._read_body(data[end + 4 :])

    def _read_body(self, data: bytes) -> None:
        if self._keep_body:
            self._chunks.append(data)
        self._missing = (self._missing or 0) - len(data)
        if self._missing > 0:
            return
        last = self._missing < 0 or _CLOSE.search(self.head) is not None
        self._missing = None
        if last and self._transport is not None:
            self._transport.close()
        self._finish(self._status)

    def _finish(self, status: int) -> None:
        self._in_flight = False
        self._listener.answered(self, status)


def _status_of(head: bytes) -> int:
    return int(head[9:12]) if head.startswith(b"HTTP/1.1 ") and head[9:12].isdigit() else BROKEN


def _length_of(head: bytes, status: int) -> int | None:
    """The body's length, or None for an answer that this client cannot read (chunked, or odd)."""
    if status in _NO_BODY:
        return 0
    found = _LENGTH.search(head)
    return int(found[1]) if found and status != BROKEN else None
