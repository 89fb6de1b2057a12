"""A connection to the service: what its client may take of time and room.

uvicorn bounds neither: its parser takes any number of headers of any size, and a client that
sends a byte now and then, or reads none, is waited for without end. Here such a client is told
so and cut off, at no cost for others: bytes are counted as they come, and one timer a process
looks at its connections once a second.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from time import monotonic
from typing import Any, NamedTuple

from prometheus_client.core import CounterMetricFamily, Metric
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from iotflow.http.admission import ARRIVED_S
from iotflow.http.problems import MEDIA_TYPE, Problem
from iotflow.http.requests import request_id
from iotflow.http.security import SecurityHeaders
from iotflow.observability.metrics import gauge, labelled
from iotflow.settings import ServerSettings

_SWEEP_S = 1.0


class Refusal(NamedTuple):
    """Why a connection is closed; `reason` is the metric's label."""

    reason: str
    status: int
    code: str
    detail: str


_BAD_REQUEST = Refusal("invalid", 400, "bad_request", "This is not HTTP. Check your client.")
_SLOW_HEAD = Refusal(
    "slow_headers", 408, "request_timeout", "The headers did not arrive in time. Send them at once."
)
_SLOW_BODY = Refusal(
    "slow_body", 408, "request_timeout", "The body did not arrive in time. Send it in parts."
)
_LARGE_HEAD = Refusal(
    "large_headers", 431, "headers_too_large", "There are too many headers, or too large ones."
)
_LARGE_BODY = Refusal(
    "large_body", 413, "body_too_large", "The body is larger than any call takes."
)
_FULL = Refusal("full", 503, "overloaded", "Too many connections are open. Try again in 1 s.")
_STALLED = Refusal("stalled", 0, "", "")
_PIPELINED = Refusal("pipelined", 0, "", "")
# Requests that wait for the answer of an earlier one. Each takes kilobytes for a few bytes sent.
_MAX_PIPELINED = 16


class Guard:
    """The bounds of a process's connections, and the timer that keeps them.

    `max_bytes` is what a whole request may have on the wire.
    """

    def __init__(
        self, bounds: ServerSettings, max_connections: int, max_bytes: int, hsts_s: int = 0
    ) -> None:
        self.bounds = bounds
        self.max_connections = max_connections
        self.max_bytes = max_bytes
        self.security = SecurityHeaders(hsts_s)
        self.refused: Counter[str] = Counter()
        self._open: set[Any] = set()
        self._armed = False

    def watch(self, loop: asyncio.AbstractEventLoop, connections: set[Any]) -> None:
        """Look after `connections`, all that there are, until there are none."""
        self._open = connections
        if not self._armed:
            self._armed = True
            loop.call_later(min(_SWEEP_S, self.bounds.header_s / 4), self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._armed = False
        now = loop.time()
        for connection in list(self._open):
            if isinstance(connection, Connection):
                connection.check(now)
        if self._open:
            self.watch(loop, self._open)

    def metrics(self) -> Iterable[Metric]:
        yield gauge("iotflow_connections", "Open connections", len(self._open))
        yield labelled(
            CounterMetricFamily,
            "iotflow_connections_refused",
            "Connections closed before their request was answered",
            "reason",
            self.refused.items(),
        )


class Connection(HttpToolsProtocol):
    """One connection, within the bounds of its guard."""

    def __init__(self, *arguments: Any, guard: Guard, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._guard = guard
        self._max_head = guard.bounds.max_header_bytes
        self._refusal = _BAD_REQUEST
        self._is_refused = False
        # When the request that is being received began; 0 between requests.
        self._since_s = 0.0
        self._stalled_s = 0.0
        self._idle_since_s = 0.0
        self._in_head = True
        self._room = self._max_head
        # Bytes that came last, and those that came since the chunk in which the head began.
        self._chunk = self._head_at_most = 0

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._since_s = self.loop.time()
        self._guard.watch(self.loop, self.connections)
        if len(self.connections) > self._guard.max_connections:
            self._refuse(_FULL)

    def data_received(self, data: bytes) -> None:
        # Stray bytes between requests, too, are a head that does not end.
        if not self._since_s:
            self._since_s = self.loop.time()
        self._chunk = len(data)
        self._head_at_most += self._chunk
        self._room -= self._chunk
        super().data_received(data)
        if self._room < 0 and not self.transport.is_closing():
            self._refuse(_LARGE_HEAD if self._in_head else _LARGE_BODY)

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= _MAX_PIPELINED:
            self._refusal = _PIPELINED
            raise ValueError  # as below; earlier answers are due first, so nothing is said
        super().on_message_begin()
        self._since_s = self._since_s or self.loop.time()
        self._head_at_most = self._chunk

    def on_headers_complete(self) -> None:
        if len(self.headers) > self._guard.bounds.max_headers or self._is_head_too_large():
            self._refusal = _LARGE_HEAD
            raise ValueError  # the parser stops, and `send_400_response` says why
        # When it began to wait for its turn (http/admission.py).
        self.scope[ARRIVED_S] = monotonic()  # type: ignore[typeddict-unknown-key]
        super().on_headers_complete()
        self._in_head = False
        self._room = self._guard.max_bytes
        # Trailers come after the body, and are no headers: a list that nobody reads takes them.
        self.headers = []

    def _is_head_too_large(self) -> bool:
        if self._head_at_most <= self._max_head:
            return False
        return len(self.url) + sum(map(len, chain.from_iterable(self.headers))) > self._max_head

    def on_response_complete(self) -> None:
        """uvicorn's, but for its timer: one made and taken back for each request costs a
        microsecond, and `check` looks at the connection anyway."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle_since_s = self.loop.time()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._since_s = 0.0
        self._in_head = True
        self._room = self._max_head

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled_s = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stalled_s = 0.0

    def check(self, now_s: float) -> None:
        """Cut the client off if it takes too long to send, or to read, or asks for nothing."""
        closing, slow = self.transport.is_closing(), self._slowness(now_s)
        unread = self.transport.get_write_buffer_size() > 0
        if not closing and not unread:
            self._stalled_s = 0.0
        elif closing or slow:
            # What is left is not much, so that nobody said that writing stalls.
            self._stalled_s = self._stalled_s or now_s
        if self._stalled_s and now_s - self._stalled_s > self._guard.bounds.request_s:
            if not self._is_refused:  # or it is counted already
                self._guard.refused[_STALLED.reason] += 1
            self.transport.abort()
        elif slow and not closing and not unread:
            self._refuse(slow)
        elif not closing and self._is_idle(now_s):
            self.transport.close()

    def _is_idle(self, now_s: float) -> bool:
        if self._since_s or self._is_answering():
            return False
        return now_s - self._idle_since_s > self._guard.bounds.keep_alive_s

    def _slowness(self, now_s: float) -> Refusal | None:
        """What its client is too slow with; an answer that it has not read it may read first."""
        if not self._since_s or self._is_answering():
            return None
        bounds = self._guard.bounds
        limit_s = bounds.header_s if self._in_head else bounds.request_s
        if now_s - self._since_s <= limit_s:
            return None
        return _SLOW_HEAD if self._in_head else _SLOW_BODY

    def _is_answering(self) -> bool:
        """Whether a request is all there and its answer is not: then it is not the client who is
        slow."""
        cycle: Any = self.cycle
        return cycle is not None and not (cycle.response_complete or cycle.more_body)

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal)

    def _refuse(self, refusal: Refusal) -> None:
        self._is_refused = True
        self._guard.refused[refusal.reason] += 1
        if self._may_answer():
            self.transport.write(self._encoded(refusal))
        self.transport.close()

    def _may_answer(self) -> bool:
        """Not into the middle of another answer, nor after the request's own."""
        cycle: Any = self.cycle
        if self.pipeline:
            return False
        if cycle is None or cycle.response_complete:
            return self._in_head
        return not self._in_head and not cycle.response_started

    def _encoded(self, refusal: Refusal) -> bytes:
        identifier = request_id({"headers": []})
        body = Problem(refusal.status, refusal.code, refusal.detail).body(identifier)
        headers: list[tuple[bytes, bytes]] = [
            (b"content-type", MEDIA_TYPE.encode("ascii")),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            (b"x-request-id", identifier.encode("ascii")),
            *self._guard.security.of_data({"scheme": self.scheme}).fields,
        ]
        if refusal.status == _FULL.status:
            headers.append((b"retry-after", b"1"))
        phrase = b"HTTP/1.1 %d \r\n" % refusal.status
        return phrase + b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n" + body
