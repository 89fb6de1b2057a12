"""Requests that fall due at a fixed rate, whatever becomes of those before them."""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from iotflow.cli.wire import WireConnection

_DRAIN_S = 15.0
_TICK_S = 0.002


class Took(NamedTuple):
    """When a request was sent, from the first on, and how long its answer took; in seconds."""

    sent_s: float
    took_s: float


@dataclass
class Seen:
    """What became of requests; times are seconds from when each was sent.

    `late_s` is how long they were due before: whoever offers more than there are connections for,
    or than it can send itself, sends late.
    """

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    began_s: float = field(default_factory=time.perf_counter)
    took: dict[int, list[Took]] = field(default_factory=dict)
    """By status."""
    late_s: list[float] = field(default_factory=list)
    without_retry_after: int = 0
    unanswered: int = 0
    broken: int = 0
    """Connections that were closed, perhaps after an answer."""

    def rate(self, status: int = 201) -> float:
        return self.statuses[status] / self.seconds

    @property
    def served(self) -> float:
        """Per second."""
        return self.rate(200) + self.rate(201)

    def share_late_s(self, share: float) -> float:
        return _share(self.late_s, share)

    def share_s(self, share: float, status: int = 201, from_s: float = 0) -> float:
        """Of those that were sent after the first `from_s`."""
        took = self.took.get(status, [])
        return _share([each.took_s for each in took if each.sent_s >= from_s], share)


def _share(values: list[float], share: float) -> float:
    """What that share of the values does not exceed."""
    return sorted(values or [0.0])[math.ceil(max(1, len(values)) * share) - 1]


class Offer:
    """Sends `requests`, pairs of a name and bytes, over as many connections.

    `stored` is called with the name of each that was answered 201.
    """

    def __init__(
        self, requests: Iterator[tuple[int, bytes]], stored: Callable[[int], None]
    ) -> None:
        self._requests = requests
        self._stored = stored
        self._idle: list[WireConnection] = []
        self._due: deque[float] = deque()
        self._names: dict[WireConnection, int] = {}
        self._seen = Seen()
        self._closed_until_s = 0.0
        self._empty = asyncio.Event()
        self._is_closed = False
        self._opening: set[asyncio.Task[None]] = set()

    async def connect(self, url: str, connections: int) -> None:
        """Open so many; one that breaks is opened anew."""
        host, port = url.removeprefix("http://").split(":")
        self._address = (host, int(port))
        for _ in range(connections):
            await self._connect()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, each = await loop.create_connection(lambda: WireConnection(self), *self._address)
        self._idle.append(each)

    async def close(self) -> None:
        """Break all connections off."""
        self._is_closed = True
        for each in [*self._idle, *self._names]:
            each.close()
        await asyncio.gather(*self._opening, return_exceptions=True)

    async def closed_loop(self, seconds: float, at_once: int) -> Seen:
        """So many are always under way: what is answered then is the capacity."""
        self._seen = Seen(seconds)
        self._closed_until_s = time.perf_counter() + seconds
        for _ in range(at_once):
            self._send(time.perf_counter())
        await asyncio.sleep(seconds)
        await self._drained()
        return self._seen

    async def open_loop(self, rate: float, seconds: float) -> Seen:
        """One is due every 1 / `rate` seconds. It waits where no connection is free."""
        self._seen = Seen(seconds)
        began_s, sent, all_of_them = time.perf_counter(), 0, round(rate * seconds)
        while sent < all_of_them:
            passed = min(all_of_them, int((time.perf_counter() - began_s) * rate))
            for number in range(sent, passed):
                self._send(began_s + number / rate)
            sent = passed
            await asyncio.sleep(_TICK_S)
        await self._drained()
        return self._seen

    def _send(self, due_s: float) -> None:
        if not self._idle:
            self._due.append(due_s)
            return
        connection = self._idle.pop()
        self._names[connection], request = next(self._requests)
        connection.since = time.perf_counter()
        self._seen.late_s.append(connection.since - due_s)
        connection.send(request)

    def answered(self, connection: WireConnection, status: int) -> None:
        seen, name = self._seen, self._names.pop(connection)
        seen.statuses[status] += 1
        took = Took(connection.since - seen.began_s, time.perf_counter() - connection.since)
        seen.took.setdefault(status, []).append(took)
        if status == 201:
            self._stored(name)
        elif status == 503 and b"\r\nretry-after:" not in connection.head.lower():
            seen.without_retry_after += 1
        if connection.usable:
            self._idle.append(connection)
        if self._due:
            self._send(self._due.popleft())
        elif time.perf_counter() < self._closed_until_s:
            self._send(time.perf_counter())
        elif not self._names:
            self._empty.set()

    def closed(self, connection: WireConnection) -> None:
        with suppress(ValueError):
            self._idle.remove(connection)
        if not self._is_closed:
            self._seen.broken += 1
            task = asyncio.create_task(self._connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _drained(self) -> None:
        self._empty.clear()
        if self._names or self._due:
            with suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_S):
                    await self._empty.wait()
        self._seen.unanswered = len(self._names) + len(self._due)
