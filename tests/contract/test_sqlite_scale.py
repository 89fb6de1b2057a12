"""What a read costs goes by what it gives back, not by what is stored.

Counted in instructions of SQLite's virtual machine, which no busy machine changes.
"""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from iotflow.domain.points import Point, Submission
from iotflow.domain.times import DAY_MS, MINUTE_MS, TimeRange
from iotflow.stores.sqlite_steps import StepLimit
from iotflow.stores.telemetry.protocol import HistoryQuery, SlotQuery
from iotflow.stores.telemetry.sqlite import SqliteTelemetryStore

YEAR_MS = 365 * DAY_MS
END_MS = 1_767_225_600_000
FEW, MANY = 1, 2  # devices
STEPS = 5


@pytest.fixture(scope="module")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SqliteTelemetryStore]:
    """A device with a thousand points and one with a year of a million, a point a minute lately."""
    store = SqliteTelemetryStore(tmp_path_factory.mktemp("scale") / "telemetry.db")
    await store.open()
    every_ms = (YEAR_MS - DAY_MS) // 1_000_000
    old = [Point(END_MS - YEAR_MS + n * every_ms, "t", float(n % 50)) for n in range(1_000_000)]
    written_us = 0
    for begin in range(0, len(old), 20_000):
        written_us += 1
        points = tuple(old[begin : begin + 20_000])
        await store.write(Submission(MANY, 1, points, written_us))
    for device in (FEW, MANY):
        written_us += 1
        day = tuple(Point(END_MS - n * MINUTE_MS, "t", n / 2) for n in range(1, 1_001))
        await store.write(Submission(device, 1, day, written_us))
    yield store
    await store.close()


async def steps(store: SqliteTelemetryStore, read: Callable[[], Awaitable[object]]) -> int:
    """Instructions that a read takes on the connection of the event loop, rounded to STEPS."""
    assert store._opened is not None
    connection = store._opened[1]._inline
    count = 0

    def tick() -> bool:
        nonlocal count
        count += 1
        return False

    connection.set_progress_handler(tick, STEPS)
    try:
        await read()
    finally:
        connection.set_progress_handler(store._opened[1]._limit, StepLimit.EVERY)
    assert count, "the read ran elsewhere"
    return count * STEPS


async def test_the_latest_value_costs_the_same(store: SqliteTelemetryStore) -> None:
    few = await steps(store, lambda: store.latest([FEW]))
    many = await steps(store, lambda: store.latest([MANY]))
    assert many <= few + STEPS


@pytest.mark.parametrize("limit", [100, 1000])
async def test_a_page_of_a_day_costs_the_same(store: SqliteTelemetryStore, limit: int) -> None:
    day = TimeRange(END_MS - DAY_MS, END_MS)
    few = await steps(store, lambda: store.history(HistoryQuery(FEW, day, limit)))
    many = await steps(store, lambda: store.history(HistoryQuery(MANY, day, limit)))
    assert many <= few * 1.05 + STEPS


async def test_windows_of_a_day_cost_the_same(store: SqliteTelemetryStore) -> None:
    day = TimeRange(END_MS - DAY_MS, END_MS)
    few = await steps(store, lambda: store.slots(SlotQuery(FEW, "t", day, 60 * MINUTE_MS, 10**6)))
    many = await steps(store, lambda: store.slots(SlotQuery(MANY, "t", day, 60 * MINUTE_MS, 10**6)))
    assert many <= few * 1.05 + STEPS
