"""The cache adapters that the contract suite runs on. Another adapter is one more entry."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from iotflow.stores.cache.memory import MemoryCache
from iotflow.stores.cache.protocol import CacheStore
from iotflow.stores.cache.ttls import CacheTtls


class CacheHarness(Protocol):
    """An open cache, and what tests must be able to do to it from outside.

    Devices, digests, subjects and channels of the tests are fresh, so a server may be shared.
    """

    store: CacheStore
    ttls: CacheTtls
    window_s: int
    """A length for windows; long enough that a few calls do not use it up."""
    max_messages: int
    """How many messages a subscription keeps."""
    jumps_in_time: bool
    """Whether `advance` is free; where it really sleeps, some tests wait less often."""

    def now(self) -> float:
        """Epoch seconds by the cache's clock."""
        ...

    async def advance(self, seconds: float) -> None:
        """Let time pass. Adapters on real servers have short TTLs and sleep."""
        ...

    async def evict_latest(self, device_id: int) -> None:
        """Make the cache lose a latest entry as it would for want of memory."""
        ...

    def unopened(self) -> CacheStore:
        """Another adapter that was never opened."""
        ...


@dataclass
class MemoryHarness:
    max_messages: int = 8
    window_s: int = 60
    jumps_in_time: bool = True
    ttls: CacheTtls = field(default_factory=CacheTtls)
    max_devices: int = 50
    now_s: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.store = self.unopened()

    def now(self) -> float:
        return self.now_s

    async def advance(self, seconds: float) -> None:
        self.now_s += seconds

    async def evict_latest(self, device_id: int) -> None:
        # As many fills of others as there is room for push it out.
        await self.store.begin_fill(range(-self.max_devices, 0))

    def unopened(self) -> MemoryCache:
        return MemoryCache(
            self.ttls,
            self.now,
            self.now,
            max_devices=self.max_devices,
            max_messages=self.max_messages,
        )


@asynccontextmanager
async def memory() -> AsyncGenerator[CacheHarness]:
    harness = MemoryHarness()
    await harness.store.open()
    try:
        yield harness
    finally:
        await harness.store.close()


ADAPTERS: dict[str, Callable[[], AbstractAsyncContextManager[CacheHarness]]] = {"memory": memory}
