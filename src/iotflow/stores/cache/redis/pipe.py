"""One connection that all requests in flight share.

Commands that are issued in the same turn of the event loop go out in one write, and their
replies are read in order. A command is never sent twice.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError

from iotflow.errors import StoreUnavailableError
from iotflow.pipeline.backoff import Backoff
from iotflow.stores.breaker import Breaker
from iotflow.stores.cache.redis.wire import DRIVER_ERRORS, Reply, Wire, end, pack

_MAX_BYTES = 32 * 1024 * 1024
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0


class LostReplyError(Exception):
    """The connection ended before the reply: whether the command was carried out is unknown."""


@dataclass(slots=True)
class PipeCounters:
    """Plain numbers that only rise, for metrics, over all connections of an adapter."""

    commands: int = 0
    batches: int = 0
    timeouts: int = 0
    reconnects: int = 0
    overflows: int = 0


@dataclass(frozen=True, slots=True)
class PipeLimits:
    """`command_s` is how long a command may take, from its issue to its reply; `silence_s` how
    long the connection for messages may go without an answer before it is given up.
    """

    command_s: float = 0.25
    connect_s: float = 0.5
    silence_s: float = 0.5
    max_waiting: int = 10_000


class Pipe:
    """`connect` makes a connection that is ready for use, or raises StoreUnavailableError.

    `start` begins the one task that connects, reads and connects again; `close` ends it.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Awaitable[Wire]],
        breaker: Breaker,
        limits: PipeLimits,
        counters: PipeCounters,
    ) -> None:
        self.name = name
        self.breaker = breaker
        self._connect = connect
        self._limits = limits
        self._counters = counters
        self._wire: Wire | None = None
        # Issued and not answered, oldest first, each with the time by which it must be, and
        # its length.
        self._waiting: deque[tuple[asyncio.Future[Reply], float, int]] = deque()
        self._waiting_bytes = 0
        self._unsent: list[bytes] = []
        self._flushing = False
        self._watching = False
        # While the first attempt to connect (again) lasts, commands wait for it.
        self._is_refusing = True
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_connected(self) -> bool:
        return self._wire is not None

    def start(self) -> None:
        if self._task is None:
            self._loop = asyncio.get_running_loop()
            self._is_refusing = False
            self._changed.clear()
            self._task = asyncio.create_task(self._run(), name=f"cache_pipe_{self.name}")

    async def connected(self) -> bool:
        """Waits for the outcome of the attempt to connect that is under way."""
        while self._wire is None and not self._is_refusing:
            self._changed.clear()
            await self._changed.wait()
        return self._wire is not None

    def check(self) -> None:
        """Raises what the task has died of, having started it again: that must not pass unseen."""
        task = self._task
        if task is not None and task.done() and not task.cancelled():
            self._task = None
            self.start()
            error = task.exception()
            if error is not None:
                raise error

    async def close(self) -> None:
        """End the connection; what waits for a reply is told that none comes."""
        self._is_refusing = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._changed.set()

    def send(self, *commands: tuple[Any, ...]) -> asyncio.Future[Reply]:
        """Issue commands one right after the other. The reply to the last comes in the future,
        an error as a value; LostReplyError is one, too.

        Raises:
            StoreUnavailableError: it was not issued, as the server is away or too much waits.
        """
        loop = self._loop
        if loop is None or self._is_refusing:
            self.breaker.failed()
            raise StoreUnavailableError("cache")
        if len(self._waiting) >= self._limits.max_waiting or self._waiting_bytes > _MAX_BYTES:
            self._counters.overflows += 1
            raise StoreUnavailableError("cache")
        ready = [pack(command) for command in commands]
        self.breaker.admit()
        due_s = loop.time() + self._limits.command_s
        future: asyncio.Future[Reply] = loop.create_future()
        for packed in ready:
            future = loop.create_future()
            self._unsent.append(packed)
            self._waiting_bytes += len(packed)
            self._waiting.append((future, due_s, len(packed)))
        if not self._flushing:
            self._flushing = True
            loop.call_soon(self._flush)
        if not self._watching:
            self._watching = True
            loop.call_at(due_s, self._watch)
        return future

    def _flush(self) -> None:
        self._flushing = False
        if self._wire is not None and self._unsent:
            self._counters.batches += 1
            self._counters.commands += len(self._unsent)
            self._wire.write(b"".join(self._unsent))
            self._unsent.clear()

    def _watch(self) -> None:
        """See to it that nothing waits for longer than it may."""
        self._watching = False
        if not self._waiting or self._loop is None:
            return
        due_s = self._waiting[0][1]
        if due_s > self._loop.time():
            self._watching = True
            self._loop.call_at(due_s, self._watch)
            return
        # Replies come in order: behind one that is late all are, and none may be mistaken
        # for another. So the connection goes.
        late = len(self._waiting)
        self._counters.timeouts += late
        self._lose()
        for _ in range(late):
            self.breaker.failed()

    def _lose(self) -> None:
        if self._wire is not None:
            self._wire.abort()
            self._wire = None
        self._unsent.clear()
        self._waiting_bytes = 0
        lost = LostReplyError()
        waiting, self._waiting = self._waiting, deque()
        for future, _, _ in waiting:
            if not future.done():
                future.set_result(lost)

    async def _run(self) -> None:
        pauses = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        try:
            while True:
                try:
                    wire = await self._connect()
                except StoreUnavailableError:
                    self.breaker.failed()
                    self._refuse()
                    await asyncio.sleep(pauses.next_s())
                    continue
                pauses.reset()
                self._established(wire)
                await self._read(wire)
                self._counters.reconnects += 1
        finally:
            self._refuse()

    def _refuse(self) -> None:
        self._is_refusing = True
        self._lose()
        self._changed.set()

    def _established(self, wire: Wire) -> None:
        self._wire = wire
        self._is_refusing = False
        self.breaker.succeeded()
        self._changed.set()
        self._flush()

    async def _read(self, wire: Wire) -> None:
        """Hand out replies until the connection ends."""
        try:
            while self._wire is wire:
                replies = await wire.replies()
                # Given up meanwhile, they are nobody's: what waits now has asked for other things.
                if self._wire is wire:
                    self._answer(replies)
        except DRIVER_ERRORS:
            self.breaker.failed()
        finally:
            if self._wire is wire:
                self._lose()
            await end(wire)

    def _answer(self, replies: list[Reply]) -> None:
        waiting = self._waiting
        for reply in replies:
            if not waiting:
                raise RedisConnectionError("A reply that nobody has asked for.")
            future, _, length = waiting.popleft()
            self._waiting_bytes -= length
            if not future.done():
                future.set_result(reply)
            if isinstance(reply, ReadOnlyError):
                # It was the primary, and is none any more: look for the one that is.
                self._lose()
                return
        self.breaker.succeeded()
