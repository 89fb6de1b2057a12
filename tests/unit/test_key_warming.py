"""A key is warmed as it is looked up: by one look-up at a time, by the cache first."""

import asyncio
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from iotflow.devices.authentication import KeyAuthenticator
from iotflow.domain.devices import DeviceStatus, KeyRecord
from iotflow.domain.secrets import DEVICE_KEY_PREFIX, new_secret
from iotflow.observability.metrics import Metrics
from iotflow.stores.cache.memory import MemoryCache
from iotflow.stores.cache.protocol import FixedEpoch
from iotflow.stores.cache.ttls import CacheTtls

NOW_S = 1_800_000_000.0
KEY = new_secret(DEVICE_KEY_PREFIX)
RECORD = KeyRecord(1, KEY.prefix, 7, 3, "boiler", DeviceStatus.ACTIVE, True, 0)


class Registry:
    """Knows one key, and when it was asked."""

    def __init__(self) -> None:
        self.asked_at: list[datetime] = []

    async def key_record(self, digest: str, now: datetime) -> KeyRecord | None:
        self.asked_at.append(now)
        await asyncio.sleep(0)
        return RECORD if digest == KEY.digest else None


@pytest.fixture
async def cache() -> MemoryCache:
    cache = MemoryCache(CacheTtls())
    await cache.open()
    return cache


async def test_the_cache_knows_a_warm_key_and_the_registry_is_asked_once(
    cache: MemoryCache,
) -> None:
    registry = Registry()
    keys = KeyAuthenticator(
        cast(Any, registry), cache, FixedEpoch(), Metrics(), lambda: NOW_S, lambda: NOW_S
    )
    warming = [keys.warm(KEY.digest) for _ in range(50)]
    *_, found = await asyncio.gather(*warming, keys.authenticate(KEY.secret))
    assert found == RECORD
    assert registry.asked_at == [datetime.fromtimestamp(NOW_S, UTC)]
    entry = await cache.key(KEY.digest)
    assert entry is not None
    assert entry.record == RECORD
    await keys.warm(KEY.digest)
    assert len(registry.asked_at) == 1


async def test_a_warm_key_takes_no_room_in_the_process(cache: MemoryCache) -> None:
    keys = KeyAuthenticator(cast(Any, Registry()), cache, FixedEpoch(), Metrics(), lambda: NOW_S)
    await keys.warm(KEY.digest)
    assert keys.known(KEY.secret) == RECORD
    assert (keys.local_hits, keys.local_misses) == (0, 1), "it was the cache that knew it"
