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
from iotflow.stores.cache.protocol import CacheStore, FixedEpoch
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
    [
        (lambda: MemoryCache(CacheTtls()), 60.0),
        (lambda: MemoryCache(CacheTtls(key_s=10)), 10.0),
        (lambda: NoCache(alone=True), 5.0),
        (NoCache, 1.0),
    ],
    ids=["memory", "memory, for ten seconds", "none", "none, and others"],
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


async def test_what_is_revoked_is_believed_no_longer() -> None:
    async with listening(MemoryCache(CacheTtls()), Clock()) as keys:
        await keys.authenticate(KEY.secret)
        await keys.revoke([KEY.digest])
        assert keys.known(KEY.secret) is None
        with pytest.raises(NotAuthenticatedError):
            await keys.authenticate(KEY.secret)
