"""The load generator: `python -m iotflow.cli.bench.loadgen`, a Plan on stdin, a Result on stdout.

It runs in a process of its own, so that it never shares an interpreter lock with what it
measures. Both kinds of load avoid the usual errors: percentiles are over every request,
the warm-up is left out, and an open loop counts latency from the time a request was due
(else a server that stalls would be asked less while it stalls, and look good).
"""

import asyncio
import contextlib
import gc
import math
import time
from array import array
from collections import Counter, deque

from iotflow.cli.bench.helper import carry_out
from iotflow.cli.bench.plan import Latency, Plan, Result, payloads, summarise
from iotflow.cli.bench.usage import most_rss_bytes
from iotflow.cli.wire import WireConnection

_RECONNECT_PAUSE_S = 0.05
_CONNECT_TIMEOUT_S = 10.0


class _Load:
    """What both kinds of load share: the connections, the window, the counting.

    Times are `time.perf_counter` seconds: uvloop's own clock ticks in milliseconds.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._payloads = payloads(plan.requests)
        self._latencies = array("d")
        self._statuses: Counter[int] = Counter()
        self._connections: set[WireConnection] = set()
        self._reconnects: set[asyncio.Task[None]] = set()
        self._issued = self._in_flight = 0
        self._begins = self._measures = self._ends = 0.0
        self._drained = asyncio.Event()

    async def run(self) -> Result:
        """Connect, warm up, measure, wait for the last answers."""
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            await asyncio.gather(*(self._connect() for _ in range(self._plan.connections)))
        self._begins = time.perf_counter()
        self._measures = self._begins + self._plan.warmup_s
        self._ends = self._measures + self._plan.seconds
        cpu_s = time.process_time()
        self._begin()
        await asyncio.sleep(self._ends - time.perf_counter())
        cpu_s = time.process_time() - cpu_s
        await self._drain()
        return self._result(cpu_s)

    def _begin(self) -> None:
        raise NotImplementedError

    def _ready(self, connection: WireConnection) -> None:
        """A connection may send again."""
        raise NotImplementedError

    def _counts(self, since: float, now: float) -> bool:
        """Whether an answer belongs to the measured window."""
        raise NotImplementedError

    def _waiting(self) -> int:
        return self._in_flight

    def _has_more(self) -> bool:
        """Whether a connection will still be needed."""
        return time.perf_counter() < self._ends

    def _send(self, connection: WireConnection, since: float) -> None:
        self._issued += 1
        self._in_flight += 1
        connection.since = since
        connection.send(next(self._payloads))

    def answered(self, connection: WireConnection, status: int) -> None:
        now = time.perf_counter()
        self._in_flight -= 1
        if self._counts(connection.since, now):
            self._latencies.append(now - connection.since)
            self._statuses[status] += 1
        if connection.usable:
            self._ready(connection)
        if now >= self._ends and not self._waiting():
            self._drained.set()

    def closed(self, connection: WireConnection) -> None:
        self._connections.discard(connection)
        if self._has_more():
            task = asyncio.get_running_loop().create_task(self._reconnect())
            self._reconnects.add(task)
            task.add_done_callback(self._reconnects.discard)

    async def _connect(self) -> WireConnection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: WireConnection(self), self._plan.host, self._plan.port
        )
        self._connections.add(connection)
        return connection

    async def _reconnect(self) -> None:
        while self._has_more():
            try:
                connection = await self._connect()
            except OSError:
                await asyncio.sleep(_RECONNECT_PAUSE_S)
                continue
            self._ready(connection)
            return

    async def _drain(self) -> None:
        if self._waiting():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), self._plan.drain_s)

    def _result(self, cpu_s: float) -> Result:
        answered, statuses = len(self._latencies), dict(self._statuses)
        unanswered = self._waiting()
        for connection in tuple(self._connections):
            connection.close()
        return Result(
            seconds=self._plan.seconds,
            issued=self._issued,
            answered=answered,
            unanswered=unanswered,
            statuses=statuses,
            latency=summarise(self._latencies),
            lag=self._lag(),
            generator_share=cpu_s / self._plan.load_s,
            generator_rss_bytes=most_rss_bytes(),
        )

    def _lag(self) -> Latency | None:
        return None


class ClosedLoop(_Load):
    """Each connection sends its next request when the last is answered: the peak rate."""

    def _begin(self) -> None:
        for connection in tuple(self._connections):
            self._ready(connection)

    def _ready(self, connection: WireConnection) -> None:
        now = time.perf_counter()
        if now < self._ends:
            self._send(connection, now)

    def _counts(self, since: float, now: float) -> bool:
        return self._measures <= now < self._ends


class OpenLoop(_Load):
    """Requests fall due at a fixed rate, whatever the answers do: the latency at that rate.

    One that finds no free connection waits for the next, and its wait counts.
    """

    def __init__(self, plan: Plan, rate: float) -> None:
        super().__init__(plan)
        self._rate = rate
        # Rounded: float arithmetic makes a request up, or not, by when the machine was started.
        self._planned = math.ceil(round(plan.load_s * rate, 6))
        self._arrivals = 0
        self._idle: list[WireConnection] = []
        self._backlog: deque[float] = deque()
        self._lags = array("d")

    def _begin(self) -> None:
        self._idle.extend(self._connections)
        self._arrive()

    def _arrive(self) -> None:
        """Send everything that is due, and come back when the next one is."""
        now = time.perf_counter()
        due = self._begins + self._arrivals / self._rate
        while due <= now and self._arrivals < self._planned:
            self._arrivals += 1
            self._send_or_queue(due)
            due = self._begins + self._arrivals / self._rate
        if self._arrivals < self._planned:
            pause_s = max(0.0, due - time.perf_counter())
            asyncio.get_running_loop().call_later(pause_s, self._arrive)

    def _send_or_queue(self, due: float) -> None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                self._send_late(connection, due)
                return
        self._backlog.append(due)

    def _send_late(self, connection: WireConnection, due: float) -> None:
        if self._measures <= due:
            self._lags.append(time.perf_counter() - due)
        self._send(connection, due)

    def _ready(self, connection: WireConnection) -> None:
        if self._backlog:
            self._send_late(connection, self._backlog.popleft())
        else:
            self._idle.append(connection)

    def _counts(self, since: float, now: float) -> bool:
        return self._measures <= since

    def _waiting(self) -> int:
        # What falls due in the last moments is sent a little later, and is waited for as well.
        return self._in_flight + self._unsent()

    def _has_more(self) -> bool:
        # Also after the end, where each connection carries one request; not after the drain.
        drained = self._ends + self._plan.drain_s
        return super()._has_more() or (self._unsent() > 0 and time.perf_counter() < drained)

    def _unsent(self) -> int:
        return len(self._backlog) + self._planned - self._arrivals

    def _lag(self) -> Latency | None:
        return summarise(self._lags)


async def run_plan(plan: Plan) -> Result:
    """Carry out a plan in this process.

    Raises:
        OSError: where the server cannot be reached at all.
    """
    load = ClosedLoop(plan) if plan.rate is None else OpenLoop(plan, plan.rate)
    return await load.run()


def main() -> None:
    """The generator's process: a Plan comes in, a Result goes out."""
    gc.freeze()
    gc.disable()  # nothing here makes cycles, and a collection would be a pause in the figures
    carry_out(Plan, run_plan)


if __name__ == "__main__":
    main()
