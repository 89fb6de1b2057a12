"""The cache adapters that the contract suite runs on. Another adapter is one more entry."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import pytest

from iotflow.stores.cache.memory import MemoryCache
from iotflow.stores.cache.protocol import CacheStore
from iotflow.stores.cache.redis import RedisCache
from iotflow.stores.cache.redis.calls import Call
from iotflow.stores.cache.redis.codec import latest_key
from iotflow.stores.cache.redis.pipe import PipeLimits
from iotflow.stores.cache.ttls import CacheTtls
from tests.contract.servers import server_url, servers


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


class SteppedEpoch:
    """An epoch whose doubts are raised at once, as a registry would soon."""

    def __init__(self) -> None:
        self.current: int | None = 1
        self.doubts = 0

    def doubt(self) -> None:
        self.doubts += 1
        self.current = (self.current or 0) + 1


# Short, as time really passes; long enough for a busy machine to do several calls in.
_SHORT_TTLS = CacheTtls(
    key_s=1.2,
    unknown_key_s=0.6,
    tombstone_s=1.2,
    forget_s=0.6,
    latest_s=1.2,
    latest_max_s=2.4,
    drop_guard_s=1.2,
    online_s=1.2,
)
# The contract is not about how quick a server is.
PATIENT = PipeLimits(command_s=5.0, connect_s=5.0, silence_s=5.0)


@dataclass
class RedisHarness:
    url: str
    max_messages: int = 8
    window_s: int = 2
    jumps_in_time: bool = False
    ttls: CacheTtls = _SHORT_TTLS
    epoch: SteppedEpoch = field(default_factory=SteppedEpoch)

    def __post_init__(self) -> None:
        self.store = self.unopened()

    def now(self) -> float:
        return time.time()

    async def advance(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def evict_latest(self, device_id: int) -> None:
        await self.command(latest_key(device_id), "UNLINK", latest_key(device_id))

    async def command(self, key: str, *command: Any) -> Any:
        """What someone else may ask of the same server."""
        return await self.store.calls.one(Call(key, command))

    def unopened(self) -> RedisCache:
        return RedisCache(
            self.url, self.ttls, self.epoch, limits=PATIENT, max_messages=self.max_messages
        )


async def until(holds: Callable[[], bool], limit_s: float = 5) -> None:
    async with asyncio.timeout(limit_s):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(store: RedisCache) -> AsyncGenerator[None]:
    """Open, with its workers, and hearing messages."""
    await store.open()
    stop = asyncio.Event()
    tasks = [asyncio.create_task(work(stop), name=name) for name, work in store.workers().items()]
    try:
        await until(lambda: store.hears)
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)
        await store.close()


@asynccontextmanager
async def redis(variable: str) -> AsyncGenerator[CacheHarness]:
    harness = RedisHarness(server_url(variable))
    async with running(harness.store):
        yield harness


Start = Callable[[], AbstractAsyncContextManager[CacheHarness]]

SHARED_ADAPTERS = [
    pytest.param(partial(redis, "IOTFLOW_TEST_REDIS_URL"), id="redis", marks=servers),
    pytest.param(partial(redis, "IOTFLOW_TEST_REDIS_SENTINEL_URL"), id="sentinel", marks=servers),
    pytest.param(partial(redis, "IOTFLOW_TEST_REDIS_CLUSTER_URL"), id="cluster", marks=servers),
]
ADAPTERS = [pytest.param(memory, id="memory"), *SHARED_ADAPTERS]
