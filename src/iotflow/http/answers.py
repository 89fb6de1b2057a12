"""Sending an answer whose bytes are all there, in one write.

ASGI has a message for the head and one for the body, and uvicorn writes each to the socket as it
comes: two system calls here, two packets and two wake-ups for the client, a fifth of what a
submission costs. So such an answer goes to uvicorn's own cycle as a whole (docs/decisions/0014);
under any other server it is sent as ASGI has it.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

HeaderFields = Iterable[tuple[bytes, bytes]]


class FixedFields(NamedTuple):
    """Header fields that many answers have in common, also as they are on the wire."""

    fields: tuple[tuple[bytes, bytes], ...]
    lines: bytes

    @classmethod
    def of(cls, fields: Sequence[tuple[bytes, bytes]]) -> "FixedFields":
        return cls(tuple(fields), b"".join([b"%b: %b\r\n" % field for field in fields]))


class _Transport(Protocol):
    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


async def send_answer(
    send: Send, status: int, fixed: FixedFields, headers: HeaderFields, body: bytes
) -> None:
    """Send an answer. Names are lower-case, and no name or value has a line break in it."""
    cycle: Any = getattr(send, "__self__", None)
    if type(cycle) is RequestResponseCycle and _is_free(cycle):
        _write(cycle, cycle.transport, status, fixed, headers, body)
        return
    fields = [*fixed.fields, *headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def _is_free(cycle: RequestResponseCycle) -> bool:
    """Whether nothing was sent and the client takes what is."""
    return not (
        cycle.response_started
        or cycle.disconnected
        or cycle.flow.write_paused
        or cycle.access_log
        or cycle.scope["method"] == "HEAD"
    )


def _write(
    cycle: RequestResponseCycle,
    transport: _Transport,
    status: int,
    fixed: FixedFields,
    headers: HeaderFields,
    body: bytes,
) -> None:
    parts = [STATUS_LINE[status], b"content-length: %d\r\n" % len(body), fixed.lines]
    for name, value in cycle.default_headers:
        parts += (name, b": ", value, b"\r\n")
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    parts += (b"\r\n", body) if cycle.keep_alive else (b"connection: close\r\n\r\n", body)
    transport.write(b"".join(parts))
    # What `RequestResponseCycle.send` leaves behind after the last message.
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.message_event.set()
    if not cycle.keep_alive:
        transport.close()
    cycle.on_response()
