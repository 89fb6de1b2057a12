import asyncio
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
    """A telemetry store that can go away and counts what it is asked.

    A read sees what is there when it begins, and answers when `answers` is set.
    """

    def __init__(self) -> None:
        self.is_away = False
        self.asked = 0
        self.point = POINT
        self.answers = asyncio.Event()
        self.answers.set()

    async def latest(self, device_ids: Sequence[int]) -> Mapping[int, list[LatestPoint]]:
        self.asked += 1
        is_away, point = self.is_away, self.point
        await asyncio.sleep(0)
        await self.answers.wait()
        if is_away:
            raise StoreUnavailableError("telemetry")
        return {device_id: [point] for device_id in device_ids if device_id != 404}

    async def until_asked(self, times: int) -> None:
        for _ in range(1_000):
            await asyncio.sleep(0)
            if self.asked >= times:
                return
        raise AssertionError(self.asked)


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


async def test_an_emptied_cache_costs_one_read_however_many_ask(cache: MemoryCache) -> None:
    store = Store()
    latest = latest_values(store, cache)
    alone = await asyncio.gather(*(latest.of(1) for _ in range(200)))
    assert store.asked == 1
    assert all(list(each.points) == [POINT] for each in alone)
    await cache.drop_latest(1, 10)
    store.asked = 0
    many = await asyncio.gather(*(latest.of_many([1, 2, 404, 1]) for _ in range(200)))
    assert store.asked == 1
    assert all(list(each[1].points) == [POINT] and not each[404].points for each in many)
    for device_id in (1, 2, 404):
        await cache.drop_latest(device_id, 20)
    store.asked = 0
    mixed = [latest.of(1), latest.of_many([1, 2]), latest.of_many([2, 404]), latest.of(2)]
    await asyncio.gather(*mixed)
    assert store.asked == 3


async def test_a_reader_that_gives_up_ends_nobody_elses_read(cache: MemoryCache) -> None:
    store = Store()
    latest = latest_values(store, cache)
    first = asyncio.create_task(latest.of_many([1, 2]))
    second = asyncio.create_task(latest.of(2))
    await asyncio.sleep(0)
    first.cancel()
    assert list((await second).points) == [POINT]
    assert store.asked <= 2
    store.is_away = True
    failed = await asyncio.gather(
        *(latest.of_many([7, number]) for number in range(8, 12)), return_exceptions=True
    )
    assert [type(each) for each in failed] == [StoreUnavailableError] * 4


NEWER = LatestPoint(POINT.timestamp_ms + 1, "t", 2.5, "", 2)


async def test_a_read_sees_what_was_acknowledged_before_it(cache: MemoryCache) -> None:
    store = Store()
    latest = latest_values(store, cache)
    store.answers.clear()
    earlier = asyncio.create_task(latest.of(1))
    await store.until_asked(1)
    store.point = NEWER  # committed, and answered 201
    alone = [asyncio.create_task(latest.of(1)) for _ in range(100)]
    many = [asyncio.create_task(latest.of_many([2, 1])) for _ in range(100)]
    await store.until_asked(2)
    await asyncio.sleep(0)
    assert store.asked == 2, "the other device's is read at once, this one's when it is its turn"
    store.answers.set()
    assert {tuple((await each).points) for each in alone} == {(NEWER,)}
    assert {tuple(points.points) for each in many for points in (await each).values()} == {(NEWER,)}
    assert list((await earlier).points) == [POINT]
    assert store.asked == 3


async def test_a_read_that_fails_or_is_given_up_fails_no_later_one(cache: MemoryCache) -> None:
    store = Store()
    latest = latest_values(store, cache)
    store.answers.clear()
    store.is_away = True
    failing = asyncio.create_task(latest.of(1))
    await store.until_asked(1)
    store.is_away = False
    later = [asyncio.create_task(latest.of(1)) for _ in range(3)]
    await asyncio.sleep(0)
    later[0].cancel()
    store.answers.set()
    with pytest.raises(StoreUnavailableError):
        await failing
    assert [list((await each).points) for each in later[1:]] == [[POINT]] * 2
    assert store.asked == 2
    await cache.drop_latest(1, 10)
    assert list((await latest.of(1)).points) == [POINT], "nothing of them is left"


class SlowCache(MemoryCache):
    """Its fills wait for one another: so many have to be under way."""

    def __init__(self, together: int) -> None:
        super().__init__(CacheTtls())
        self._barrier = asyncio.Barrier(together)

    async def fill_latest(
        self, device_id: int, points: Sequence[LatestPoint], generation: int
    ) -> bool:
        await self._barrier.wait()
        return await super().fill_latest(device_id, points, generation)


async def test_a_page_of_devices_is_filled_all_at_once() -> None:
    cache = SlowCache(500)
    await cache.open()
    latest = latest_values(Store(), cache)
    async with asyncio.timeout(10):
        found = await latest.of_many(range(1_000, 1_500))
    assert {each.cache for each in found.values()} == {"miss"}
    assert (await latest.of(1_000)).cache == "hit"
