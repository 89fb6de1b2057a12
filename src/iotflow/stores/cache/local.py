"""Level one: small bounded caches inside the process, in front of the cache role."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from iotflow.stores.cache.expiring import ExpiringMap

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LocalCache(Generic[K, V]):
    """The `capacity` entries that were put last, or up to twice as many, each for `ttl_s` seconds.

    `now` is a monotonic clock in seconds.
    """

    def __init__(
        self, capacity: int, ttl_s: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._now = now
        self._entries: ExpiringMap[K, V] = ExpiringMap(ttl_s, capacity)
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        found = self.glance(key)
        if found is None:
            self.misses += 1
        return found

    def glance(self, key: K) -> V | None:
        """`get`, for who will ask again where there is nothing: no miss is counted."""
        found = self._entries.get(key, self._now())
        if found is not None:
            self.hits += 1
        return found

    def put(self, key: K, value: V) -> None:
        self._entries.put(key, value, self._now())

    def pop(self, key: K) -> None:
        self._entries.pop(key)

    def clear(self) -> None:
        self._entries.clear()


class SingleFlight(Generic[K, V]):
    """Runs one look-up per key at a time; those who ask meanwhile share its outcome."""

    def __init__(self) -> None:
        self._flights: dict[K, asyncio.Task[V]] = {}

    async def run(self, key: K, look_up: Callable[[], Awaitable[V]]) -> V:
        """The look-up's result or its exception. A caller that is cancelled ends nobody else's."""
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.ensure_future(_await(look_up))
            self._flights[key] = flight
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        return await asyncio.shield(flight)


async def _await(look_up: Callable[[], Awaitable[V]]) -> V:
    return await look_up()
