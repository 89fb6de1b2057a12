"""Messages between replicas: one subscribed connection a process, fanned out inside it."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

import structlog

from iotflow.errors import StoreUnavailableError
from iotflow.pipeline.backoff import Backoff, pause
from iotflow.stores.cache.memory.pubsub import Broker
from iotflow.stores.cache.protocol import Subscription
from iotflow.stores.cache.redis.wire import DRIVER_ERRORS, Reply, Wire, end, pack

# A PING each time; after the longest silence that is borne the connection is given up.
_PING_EVERY_S, _GRACE_S = 0.2, 0.05
_CONFIRM_S = 1.0
_log = structlog.get_logger(__name__)


class Messages:
    """`connect` makes a connection to where messages are published.

    Whoever subscribes while there is no connection hears nothing until there is one;
    `hears` tells. `lost` is called when a connection has ended unasked: what was published since
    then is not heard.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Wire]],
        lost: Callable[[], None],
        max_subscribers: int,
        max_messages: int,
        silence_s: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._connect = connect
        self._lost = lost
        self._silence_s = silence_s
        self._monotonic = monotonic
        self._broker = Broker(max_subscribers, max_messages)
        self._channels: dict[str, int] = {}
        self._wire: Wire | None = None
        # Redis confirms each subscription of a connection in the order of their asking.
        self._unconfirmed: deque[asyncio.Future[bool]] = deque()
        self._answered_s = float("-inf")
        self.connects = 0

    @property
    def hears(self) -> bool:
        """Whether messages surely arrive: the server has answered `silence_s` ago at most."""
        return self._wire is not None and self._monotonic() - self._answered_s <= self._silence_s

    def sizes(self) -> dict[str, int]:
        return self._broker.sizes()

    def close(self) -> None:
        """End all subscriptions; who waits for a message is told."""
        self._broker.close()

    @asynccontextmanager
    async def subscribe(self, *channels: str) -> AsyncGenerator[Subscription]:
        """Raises OverloadedError where there are as many subscribers as may be."""
        async with self._broker.subscribe(*channels) as subscription:
            names = set(channels)
            try:
                await self._enter(names)
                yield subscription
            finally:
                self._leave(names)

    async def _enter(self, names: set[str]) -> None:
        fresh = [name for name in names if name not in self._channels]
        for name in names:
            self._channels[name] = self._channels.get(name, 0) + 1
        confirmed = self._ask_for(fresh)
        if not confirmed and self._wire is not None:
            # Others may have asked for these channels just now: what was asked comes first.
            confirmed = list(self._unconfirmed)
        if confirmed:
            await asyncio.wait(confirmed, timeout=_CONFIRM_S)

    def _leave(self, names: set[str]) -> None:
        gone: list[str] = []
        for name in names & self._channels.keys():
            self._channels[name] -= 1
            if not self._channels[name]:
                del self._channels[name]
                gone.append(name)
        if gone and self._wire is not None:
            self._wire.write(pack(("UNSUBSCRIBE", *gone)))

    def _ask_for(self, names: list[str]) -> list[asyncio.Future[bool]]:
        wire = self._wire
        if wire is None or not names:
            return []
        loop = asyncio.get_running_loop()
        asked = [loop.create_future() for _ in names]
        self._unconfirmed.extend(asked)
        wire.write(pack(("SUBSCRIBE", *names)))
        return asked

    async def listen(self, stop: asyncio.Event) -> None:
        """Keep the connection until `stop`; a supervised worker runs this."""
        pauses = Backoff(0.05, 1.0)
        while not stop.is_set():
            try:
                await self._hear(await self._connect(), stop, pauses)
            except (StoreUnavailableError, *DRIVER_ERRORS) as error:
                _log.debug("cache_messages_interrupted", cause=type(error).__name__)
                await pause(stop, pauses.next_s())

    async def _hear(self, wire: Wire, stop: asyncio.Event, pauses: Backoff) -> None:
        self._wire, self._answered_s = wire, float("-inf")
        self.connects += 1
        pinging = asyncio.create_task(self._ping(wire, stop), name="cache_messages_ping")
        try:
            self._ask_for(list(self._channels))
            while not stop.is_set():
                for reply in await wire.replies():
                    self._take(reply)
                pauses.reset()
        finally:
            self._wire = None
            if not stop.is_set():
                self._lost()
            for future in self._unconfirmed:
                future.cancel()
            self._unconfirmed.clear()
            pinging.cancel()
            await asyncio.wait({pinging})
            await end(wire)

    async def _ping(self, wire: Wire, stop: asyncio.Event) -> None:
        """Ends the connection when the server is silent for too long, or it is time to stop."""
        began_s = self._monotonic()
        while not stop.is_set():
            wire.write(pack(("PING",)))
            await pause(stop, _PING_EVERY_S)
            if self._is_silent(began_s):
                # Or we were: then the answer is there already and has only to be read.
                await pause(stop, _GRACE_S)
                if self._is_silent(began_s):
                    break
        wire.abort()

    def _is_silent(self, began_s: float) -> bool:
        return self._monotonic() - max(self._answered_s, began_s) > self._silence_s

    def _take(self, reply: Reply) -> None:
        if isinstance(reply, Exception):
            raise reply
        if not isinstance(reply, list):
            self._answered_s = self._monotonic()  # PONG while there is no subscription
            return
        parts = cast(list[bytes], reply)
        kind = parts[0]
        if kind == b"message":
            self._broker.publish(parts[1].decode(), parts[2])
        elif kind == b"subscribe":
            future = self._unconfirmed.popleft() if self._unconfirmed else None
            if future is not None and not future.done():
                future.set_result(True)
        elif kind == b"pong":
            self._answered_s = self._monotonic()
