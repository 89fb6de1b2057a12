"""Submissions at fixed due times, however long the answers take (an open loop)."""

import asyncio
import contextlib
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from iotflow.cli.client import ServerUnreachableError
from iotflow.cli.fleet import Kind, Submission
from iotflow.cli.simulating.ledger import Ledger
from iotflow.cli.wire import WireConnection, encode_request
from iotflow.http.paths import API
from iotflow.pipeline.backoff import Backoff

MOST_WAITING = 10_000
_CONNECT_S = 10.0
_DRAIN_S = 10.0
_SILENT_S = 60.0
_SWEEP_S = 5.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where submissions go, and the key of each device."""

    host: str
    port: int
    tls: bool
    netloc: str
    path: str
    keys: Sequence[str]

    @classmethod
    def of(cls, url: str, keys: Sequence[str]) -> "Target":
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        path = f"{parts.path.rstrip('/')}{API}/telemetry"
        port = parts.port or (443 if tls else 80)
        return cls(parts.hostname or "", port, tls, parts.netloc.rpartition("@")[2], path, keys)

    def request(self, submission: Submission) -> bytes:
        headers = {
            "X-API-Key": self.keys[submission.device],
            "Content-Type": "application/json",
        }
        return encode_request("POST", self.path, self.netloc, headers, submission.body)


@dataclass(frozen=True, slots=True)
class _Waiting:
    due: float
    submission: Submission


class Load:
    """Sends what `next_submission(slot, now_ms)` gives, `rate` slots a second.

    A slot that finds no free connection waits for one, and its wait counts into its latency;
    past MOST_WAITING waiting slots the next ones are not sent at all, and counted.
    """

    def __init__(
        self,
        target: Target,
        next_submission: Callable[[int, int], Submission],
        *,
        rate: float,
        connections: int,
        duration_s: float,
    ) -> None:
        self.ledger = Ledger()
        self._target = target
        self._tls = ssl.create_default_context() if target.tls else None
        self._next_submission = next_submission
        self._rate = rate
        self._most_connections = connections
        self._duration_s = duration_s or float("inf")
        self._idle: list[WireConnection] = []
        self._open: set[WireConnection] = set()
        self._under_way: dict[WireConnection, _Waiting] = {}
        self._backlog: deque[_Waiting] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._begins = self._began_wall_s = self._sweeps_at = 0.0
        self._slot = 0
        self._settled = asyncio.Event()
        self._stopping = False

    @property
    def seconds(self) -> float:
        """For how long slots have fallen due."""
        return self._slot / self._rate

    async def run(self, stop: asyncio.Event) -> None:
        """Run until the duration is over or `stop` is set, then wait for the last answers.

        Raises:
            ServerUnreachableError: there was no connection to begin with.
        """
        await self._first_connection()
        self._begins, self._began_wall_s = time.perf_counter(), time.time()
        ends = asyncio.get_running_loop().create_task(stop.wait(), name="simulation-stop")
        try:
            while not stop.is_set() and (pause_s := self._arrive()) is not None:
                await asyncio.wait((ends,), timeout=min(pause_s, _SWEEP_S))
                self._break_silent()
            await self._drain()
        finally:
            ends.cancel()
            await self._close()

    def _arrive(self) -> float | None:
        """Send everything that is due; the seconds to the next slot, None after the last."""
        while (due_s := self._slot / self._rate) < self._duration_s:
            wait_s = self._begins + due_s - time.perf_counter()
            if wait_s > 0:
                return wait_s
            now_ms = int((self._began_wall_s + due_s) * 1000)
            submission = self._next_submission(self._slot, now_ms)
            self._slot += 1
            self.ledger.note_due(submission)
            if submission.kind is not Kind.ABSENT:
                self._send_or_queue(_Waiting(self._begins + due_s, submission))
        return None

    def _send_or_queue(self, waiting: _Waiting) -> None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                self._send(connection, waiting)
                return
        if len(self._backlog) >= MOST_WAITING:
            self.ledger.unsent += 1
            return
        self._backlog.append(waiting)
        self._open_another()

    def _send(self, connection: WireConnection, waiting: _Waiting) -> None:
        connection.since = waiting.due
        self._under_way[connection] = waiting
        connection.send(self._target.request(waiting.submission))

    def answered(self, connection: WireConnection, status: int) -> None:
        waiting = self._under_way.pop(connection, None)
        if waiting is not None:
            seconds = time.perf_counter() - waiting.due
            self.ledger.note_answer(waiting.submission, status, seconds)
        self._ready(connection)

    def closed(self, connection: WireConnection) -> None:
        self._open.discard(connection)
        if self._backlog:
            self._open_another()

    def _ready(self, connection: WireConnection) -> None:
        if not connection.usable:
            pass
        elif self._backlog:
            self._send(connection, self._backlog.popleft())
        else:
            self._idle.append(connection)
        if not self._under_way and not self._backlog:
            self._settled.set()

    def _open_another(self) -> None:
        if self._stopping or len(self._open) + len(self._opening) >= self._most_connections:
            return
        task = asyncio.get_running_loop().create_task(self._opened(), name="simulation-connect")
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _opened(self) -> None:
        pauses = Backoff(0.1, 2.0)
        while self._backlog:
            try:
                self._ready(await self._connect())
            except OSError:
                await asyncio.sleep(pauses.next_s())
            else:
                return

    async def _first_connection(self) -> None:
        try:
            self._idle.append(await self._connect())
        except OSError as error:
            why = error.strerror or str(error) or type(error).__name__
            raise ServerUnreachableError(
                f"http{'s' * self._target.tls}://{self._target.netloc} cannot be reached ({why}). "
                "Does IoTFlow serve there? See --url (IOTFLOW_URL)."
            ) from None

    async def _connect(self) -> WireConnection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_CONNECT_S):
            _, connection = await loop.create_connection(
                lambda: WireConnection(self),
                self._target.host,
                self._target.port,
                ssl=self._tls,
            )
        self._open.add(connection)
        return connection

    def _break_silent(self) -> None:
        """Give up requests that nobody answers: their connections would be lost to the others."""
        now = time.perf_counter()
        if now < self._sweeps_at:
            return
        self._sweeps_at = now + _SWEEP_S
        for connection, sent in tuple(self._under_way.items()):
            if now - sent.due > _SILENT_S:
                connection.close()

    async def _drain(self) -> None:
        if self._under_way or self._backlog:
            self._settled.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_S):
                    await self._settled.wait()

    async def _close(self) -> None:
        """What has no answer now stays without one."""
        self._stopping = True
        self._under_way.clear()
        for task in tuple(self._opening):
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for connection in tuple(self._open):
            connection.close()
        await asyncio.sleep(0)
