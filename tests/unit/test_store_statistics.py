"""Statistics of stores: collected in the background, old ones left out, failures told once."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from iotflow.errors import StoreUnavailableError
from iotflow.observability.metrics import exposition
from iotflow.pipeline.store_statistics import StatisticsCollector, StoreStatistics
from iotflow.stores.breaker import Breaker, BreakerState
from iotflow.stores.cache.redis.pipe import Pipe, PipeCounters, PipeLimits
from iotflow.stores.cache.redis.statistics import read_info, server_statistics
from iotflow.stores.statistics import Statistic

EVERY_S = 10.0


class Store:
    """Tells what it is given to tell: values, who makes them, or an error to raise."""

    def __init__(self, told: Any) -> None:
        self.told = told
        self.asked = 0
        self.breaker_state = BreakerState.CLOSED

    async def statistics(self) -> list[Statistic]:
        self.asked += 1
        if isinstance(self.told, Exception):
            raise self.told
        if self.told is None:
            await asyncio.Event().wait()
        if callable(self.told):
            return list(self.told())
        return list(self.told)


class Watched:
    """A store's statistics with a clock of their own."""

    def __init__(self, told: Any) -> None:
        self.now_s = 100.0
        self.store = Store(told)
        self.statistics = StoreStatistics(
            "events",
            self.store,  # type: ignore[arg-type]
            EVERY_S,
            limit_s=0.01,
            clock=lambda: self.now_s,
        )

    def exposed(self) -> str:
        return exposition(StatisticsCollector([self.statistics]).metrics()).decode()


SIZES = [
    Statistic("some_bytes", "Size", 5.0, (("file", "data"),)),
    Statistic("some_bytes", "Size", 6.0, (("file", "wal"),)),
    Statistic("some_calls", "Calls", 7.0, (), True),
]


async def test_what_was_told_is_exposed_with_its_age() -> None:
    watched = Watched(SIZES)
    await watched.statistics.ask()
    watched.now_s += 4
    text = watched.exposed()
    assert 'some_bytes{file="data",store="events"} 5.0' in text
    assert 'some_bytes{file="wal",store="events"} 6.0' in text
    assert 'some_calls_total{store="events"} 7.0' in text
    assert 'iotflow_store_statistics_age_seconds{store="events"} 4.0' in text


async def test_nothing_is_exposed_before_the_first_answer() -> None:
    text = Watched(SIZES).exposed()
    assert "some_bytes" not in text
    assert "age_seconds{" not in text


async def test_a_store_that_is_away_is_told_once_and_its_values_end() -> None:
    watched = Watched(SIZES)
    await watched.statistics.ask()
    watched.store.told = StoreUnavailableError("events")
    with capture_logs() as lines:
        for _ in range(5):
            watched.now_s += EVERY_S
            await watched.statistics.ask()
    assert [line["event"] for line in lines] == ["store_tells_nothing"]
    text = watched.exposed()
    assert "some_bytes" not in text
    assert 'iotflow_store_statistics_failures_total{store="events"} 5.0' in text
    watched.store.told = SIZES
    await watched.statistics.ask()
    assert "some_bytes" in watched.exposed()


async def test_one_that_does_not_answer_is_given_up_in_time() -> None:
    watched = Watched(None)
    async with asyncio.timeout(5):
        await watched.statistics.ask()
    assert watched.statistics.failures == 1


async def test_an_answer_that_cannot_be_read_ends_no_worker() -> None:
    watched = Watched(KeyError("a field that was there always"))
    await watched.statistics.ask()
    assert watched.statistics.failures == 1


async def test_a_store_whose_breaker_is_open_is_left_in_peace() -> None:
    watched = Watched(SIZES)
    watched.store.breaker_state = BreakerState.OPEN
    await watched.statistics.ask()
    assert watched.store.asked == 0


def test_the_numbers_of_redis_are_read() -> None:
    told = read_info("# Memory\r\nused_memory:12\r\nrole:master\r\nmem_fragmentation_ratio:1.5\r\n")
    assert told == {"used_memory": 12.0, "mem_fragmentation_ratio": 1.5}


async def test_redis_tells_nothing_where_no_server_can_be_asked() -> None:
    async def connect() -> Any:
        raise StoreUnavailableError("cache")

    pipe = Pipe("a server", connect, Breaker("cache"), PipeLimits(), PipeCounters())
    with pytest.raises(StoreUnavailableError):
        await server_statistics([pipe])


async def test_who_is_asked_while_all_stops_holds_nobody_up() -> None:
    stop = asyncio.Event()

    def stopping() -> list[Statistic]:
        stop.set()
        return SIZES

    watched = Watched(stopping)
    await asyncio.wait_for(watched.statistics.run(stop), 1)
    assert watched.statistics.values() == SIZES
