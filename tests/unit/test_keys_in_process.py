"""How long a process believes a key record that it has looked up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from iotflow.devices.authentication import KeyAuthenticator
from iotflow.domain.devices import DeviceStatus, KeyRecord
from iotflow.domain.secrets import DEVICE_KEY_PREFIX, new_secret
from iotflow.errors import NotAuthenticatedError
from iotflow.observability.metrics import Metrics
from iotflow.stores.cache.memory import MemoryCache
from iotflow.stores.cache.none import NoCache
from iotflow.stores.cache.protocol import CacheStore, FixedEpoch, KeyEntry
from iotflow.stores.cache.ttls import CacheTtls

NOW_S = 1_800_000_000.0
KEY = new_secret(DEVICE_KEY_PREFIX)
RECORD = KeyRecord(1, KEY.prefix, 7, 3, "boiler", DeviceStatus.ACTIVE, True, 0)


class Registry:
    async def key_record(self, digest: str, now: Any) -> KeyRecord | None:
        return RECORD if digest == KEY.digest else None


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def listening(cache: CacheStore, clock: Clock) -> AsyncIterator[KeyAuthenticator]:
    """Keys of a process that hears of revocations."""
    await cache.open()
    keys = KeyAuthenticator(
        cast(Any, Registry()), cache, FixedEpoch(), Metrics(), lambda: NOW_S, clock
    )
    stop = asyncio.Event()
    listener = asyncio.create_task(keys.listen(stop))
    await asyncio.sleep(0)
    try:
        yield keys
    finally:
        stop.set()
        await listener


@pytest.mark.parametrize(
    ("cache", "believed_s"),
    [(lambda: NoCache(alone=True), 5.0), (NoCache, 1.0)],
    ids=["none", "none, and others"],
)
async def test_it_is_looked_up_again_in_time(
    cache: Callable[[], CacheStore], believed_s: float
) -> None:
    clock = Clock()
    async with listening(cache(), clock) as keys:
        assert keys.known(KEY.secret) is None
        assert await keys.authenticate(KEY.secret) == RECORD
        clock.now_s = believed_s - 0.1
        assert keys.known(KEY.secret) == RECORD
        clock.now_s = believed_s + 0.1
        assert keys.known(KEY.secret) is None


async def test_a_cache_in_the_process_is_asked_without_waiting_for_as_long_as_it_knows() -> None:
    clock = Clock()
    async with listening(MemoryCache(CacheTtls(key_s=60), clock), clock) as keys:
        await keys.authenticate(KEY.secret)
        misses = keys.local_misses
        clock.now_s = 59
        assert keys.known(KEY.secret) == RECORD
        assert keys.local_misses == misses + 1
        clock.now_s = 61
        assert keys.known(KEY.secret) == RECORD
        assert keys.local_misses == misses + 1, "it was asked for two seconds ago"
        clock.now_s = 65
        assert keys.known(KEY.secret) is None


async def test_a_key_that_the_cache_knows_to_open_nothing_is_not_known() -> None:
    cache = MemoryCache(CacheTtls())
    async with listening(cache, Clock()) as keys:
        await cache.fill_key(KEY.digest, KeyEntry(None))
        assert keys.known(KEY.secret) is None
        with pytest.raises(NotAuthenticatedError):
            await keys.authenticate(KEY.secret)


async def test_what_is_revoked_is_believed_no_longer() -> None:
    async with listening(MemoryCache(CacheTtls()), Clock()) as keys:
        await keys.authenticate(KEY.secret)
        await keys.revoke([KEY.digest])
        assert keys.known(KEY.secret) is None
        with pytest.raises(NotAuthenticatedError):
            await keys.authenticate(KEY.secret)
