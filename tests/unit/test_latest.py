from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from iotflow.domain.points import LatestPoint
from iotflow.errors import NotFoundError, StoreUnavailableError
from iotflow.observability.metrics import Metrics
from iotflow.stores.cache.memory import MemoryCache
from iotflow.stores.cache.ttls import CacheTtls
from iotflow.stores.telemetry.protocol import TelemetryStore
from iotflow.telemetry.latest import LatestValues

POINT = LatestPoint(1_767_225_600_000, "t", 1.5, "", 1)


class Store:
    """A telemetry store that can go away and counts what it is asked."""

    def __init__(self) -> None:
        self.is_away = False
        self.asked = 0

    async def latest(self, device_ids: Sequence[int]) -> Mapping[int, list[LatestPoint]]:
        self.asked += 1
        if self.is_away:
            raise StoreUnavailableError("telemetry")
        return {device_id: [POINT] for device_id in device_ids if device_id != 404}


@pytest.fixture
async def cache() -> MemoryCache:
    cache = MemoryCache(CacheTtls())
    await cache.open()
    return cache


def latest_values(store: Store, cache: MemoryCache) -> LatestValues:
    telemetry = cast(TelemetryStore, cast(Any, store))
    return LatestValues(telemetry, cache, Metrics(), lambda: not store.is_away)


async def test_a_miss_fills_and_while_the_store_is_away_a_hit_is_stale(cache: MemoryCache) -> None:
    store = Store()
    latest = latest_values(store, cache)
    assert (await latest.of(1)).cache == "miss"
    assert (await latest.of(1)).cache == "hit"
    store.is_away = True
    found = await latest.of(1)
    assert (found.cache, list(found.points)) == ("stale", [POINT])
    assert store.asked == 1
    with pytest.raises(StoreUnavailableError):
        await latest.of(2)
    with pytest.raises(StoreUnavailableError):
        await latest.of_many([1, 2])
    assert (await latest.of_many([1]))[1].cache == "stale"


async def test_without_a_cache_the_store_is_asked(cache: MemoryCache) -> None:
    store = Store()
    latest = latest_values(store, cache)
    await cache.close()
    assert [(await latest.of(1)).cache for _ in range(2)] == ["miss", "miss"]
    with pytest.raises(NotFoundError):
        await latest.of(404)
