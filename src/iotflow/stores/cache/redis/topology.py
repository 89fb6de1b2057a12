"""Where a command goes: to the one server, or to the primary that Sentinel names."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, cast

from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from iotflow.errors import StoreUnavailableError
from iotflow.stores.breaker import Breaker
from iotflow.stores.cache.redis.histories import Histories
from iotflow.stores.cache.redis.pipe import Pipe, PipeCounters, PipeLimits
from iotflow.stores.cache.redis.urls import Address, RedisUrl
from iotflow.stores.cache.redis.wire import DRIVER_ERRORS, Reply, Wire, connect

NewBreaker = Callable[[], Breaker]


class Topology(Protocol):
    """The pipes to the servers. Calls raise StoreUnavailableError where there is none."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def tend(self) -> None:
        """Called again and again: follow what has moved. Raises nothing of the store's."""
        ...

    def pipes(self) -> Sequence[Pipe]: ...

    def send(self, key: str, command: tuple[Any, ...]) -> asyncio.Future[Reply]:
        """Issue a command whose keys share the slot of `key`."""
        ...

    def redirect(self, command: tuple[Any, ...], error: Exception) -> asyncio.Future[Reply] | None:
        """Issue it where the error says; None where the error says nothing of the kind."""
        ...

    def publish(self, channel: str, payload: bytes) -> asyncio.Future[Reply]: ...

    async def connect_messages(self) -> Wire:
        """A connection of its own to where `publish` goes."""
        ...


class OneServer:
    """A single server, or the primary of a Sentinel service, looked up at each connect."""

    def __init__(
        self,
        url: RedisUrl,
        histories: Histories,
        new_breaker: NewBreaker,
        limits: PipeLimits,
        counters: PipeCounters,
    ) -> None:
        self._url = url
        self._limits = limits
        self._histories = histories
        self._sentinel = _sentinel(url, limits.connect_s / 2) if url.kind == "sentinel" else None
        self._pipe = Pipe(url.kind, self._connect, new_breaker(), limits, counters)

    async def open(self) -> None:
        self._pipe.start()
        if not await self._pipe.connected():
            await self._pipe.close()
            raise StoreUnavailableError("cache")

    async def close(self) -> None:
        await self._pipe.close()
        if self._sentinel is not None:
            await self._sentinel.aclose()

    async def tend(self) -> None:
        return

    def pipes(self) -> Sequence[Pipe]:
        return (self._pipe,)

    def send(self, key: str, command: tuple[Any, ...]) -> asyncio.Future[Reply]:
        return self._pipe.send(command)

    def redirect(self, command: tuple[Any, ...], error: Exception) -> asyncio.Future[Reply] | None:
        return None

    def publish(self, channel: str, payload: bytes) -> asyncio.Future[Reply]:
        return self._pipe.send(("PUBLISH", channel, payload))

    async def connect_messages(self) -> Wire:
        return await self._connect()

    async def _connect(self) -> Wire:
        address = await self._address()
        return await connect(self._url, address, self._limits.connect_s, self._histories.greet)

    async def _address(self) -> Address:
        if self._sentinel is None:
            return self._url.addresses[0]
        try:
            async with asyncio.timeout(self._limits.connect_s * 2):
                return await _primary(self._sentinel, self._url.service)
        except DRIVER_ERRORS as error:
            raise StoreUnavailableError("cache") from error


def _sentinel(url: RedisUrl, limit_s: float) -> Sentinel:
    options: dict[str, Any] = {
        "socket_timeout": limit_s,
        "socket_connect_timeout": limit_s,
        "retry": Retry(NoBackoff(), 0),
        **url.sentinel_options,
    }
    return Sentinel(list(url.addresses), sentinel_kwargs=options)


async def _primary(sentinel: Sentinel, service: str) -> Address:
    discover = cast(Callable[[str], Awaitable[Address]], sentinel.discover_master)
    return await discover(service)
