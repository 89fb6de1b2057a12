"""Reading request bodies within their bounds."""

import asyncio
import zlib
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import Receive
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from iotflow.errors import TooLargeError, UnreadableBodyError, UnsupportedMediaError

# A backstop: the server gives a whole request less (http/connections.py).
MAX_SECONDS = 3600
_GZIP = 16 + zlib.MAX_WBITS


def arrived_body(receive: Receive) -> bytes | None:
    """What `receive` would give, where it need not be waited for: all of it is there.

    The body of a submission mostly comes with its headers. To be told so by `receive` costs a
    message, two coroutines and an event. None under another server than uvicorn.
    """
    cycle: Any = getattr(receive, "__self__", None)
    if type(cycle) is not RequestResponseCycle or cycle.more_body or cycle.disconnected:
        return None
    body = bytes(cycle.body)
    # What `RequestResponseCycle.receive` leaves behind.
    cycle.body = bytearray()
    cycle.message_event.clear()
    return body


def checked_body(body: bytes, encoding: bytes, max_bytes: int) -> bytes:
    """A body that is all there, decompressed. Raises as `read_body` does."""
    if len(body) > max_bytes:
        raise too_large(max_bytes)
    return _decoded(body, encoding, max_bytes) if encoding else body


async def read_body(receive: Receive, encoding: bytes, max_bytes: int) -> bytes:
    """The body, decompressed; `max_bytes` bounds it before and after decompression.

    Raises:
        TooLargeError: it is larger.
        UnreadableBodyError: it is not the gzip that it says it is.
        UnsupportedMediaError: another Content-Encoding.
    """
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        body = await _read_rest(receive, body, max_bytes)
    return checked_body(body, encoding, max_bytes)


async def _read_rest(receive: Receive, begun: bytes, max_bytes: int) -> bytes:
    try:
        async with asyncio.timeout(MAX_SECONDS):
            return await _read_messages(receive, begun, max_bytes)
    except TimeoutError:
        message = f"The body did not arrive within {MAX_SECONDS} s. Send it in smaller parts."
        raise UnreadableBodyError(message, code="body_too_slow") from None


async def _read_messages(receive: Receive, begun: bytes, max_bytes: int) -> bytes:
    parts, size, more = [begun], len(begun), True
    while more:
        if size > max_bytes:
            raise too_large(max_bytes)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part: bytes = message.get("body", b"")
        parts.append(part)
        size += len(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def _decoded(body: bytes, encoding: bytes, max_bytes: int) -> bytes:
    match encoding.strip().lower():
        case b"" | b"identity":
            return body
        case b"gzip" | b"x-gzip":
            return _gunzip(body, max_bytes)
        case _:
            raise UnsupportedMediaError("Send the body plain or as Content-Encoding: gzip.")


def _gunzip(body: bytes, max_bytes: int) -> bytes:
    """A gzip file may have several members, one after the other."""
    parts: list[bytes] = []
    room = max_bytes
    try:
        while body:
            member = zlib.decompressobj(_GZIP)
            part = member.decompress(body, room + 1)
            room -= len(part)
            if room < 0:
                raise too_large(max_bytes)
            if not member.eof:
                raise UnreadableBodyError("The gzip data ends too early.", code="invalid_gzip")
            parts.append(part)
            body = member.unused_data
    except zlib.error:
        raise UnreadableBodyError("The body is not gzip data.", code="invalid_gzip") from None
    return b"".join(parts)


def too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"The body may have at most {max_bytes} bytes, also when decompressed.")
