"""A device in a telemetry store, as the tests drive it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from secrets import randbits

from iotflow.domain.points import LatestPoint, Point, Submission, Value
from iotflow.domain.times import DAY_MS, MAX_TIMESTAMP_MS, TimeRange
from iotflow.stores.telemetry.protocol import (
    HistoryQuery,
    Order,
    PageKey,
    Sample,
    Slot,
    SlotQuery,
    TelemetryStore,
)
from tests.contract.telemetry_adapters import TelemetryHarness

_ids = count(randbits(40) + 1)
_marks = count(1_767_225_600_000_000)

# Midnight in UTC, so that tests can say on which side of a day's edge a point lies.
T0 = 1_767_225_600_000
EVER = TimeRange(0, MAX_TIMESTAMP_MS + 1)
YEAR_2026 = TimeRange(T0, T0 + 365 * DAY_MS)

Exact = tuple[int, str, str, str, str]


def next_mark() -> int:
    return next(_marks)


def point(at_ms: int, name: str = "t", value: Value = 1.5, unit: str = "") -> Point:
    """A point at T0 + `at_ms`."""
    return Point(T0 + at_ms, name, value, unit)


def exact(points: Iterable[Point | LatestPoint]) -> list[Exact]:
    """Points told apart by their types too: to Python True, 1 and 1.0 are the same, as 0 and -0."""
    return [
        (p.timestamp_ms, p.measurement, type(p.value).__name__, repr(p.value), p.unit)
        for p in points
    ]


@dataclass
class DrivenDevice:
    """Times are relative to T0."""

    harness: TelemetryHarness
    id: int = field(default_factory=lambda: next(_ids))
    user_id: int = 7

    @property
    def store(self) -> TelemetryStore:
        return self.harness.store

    async def write(self, *points: Point, mark: int | None = None) -> int:
        """Write points in one submission; returns its mark."""
        mark = next_mark() if mark is None else mark
        await self.store.write(Submission(self.id, self.user_id, points, mark))
        return mark

    async def delete(self, start_ms: int, end_ms: int, mark: int | None = None) -> int | None:
        within = TimeRange(T0 + start_ms, T0 + end_ms)
        mark = next_mark() if mark is None else mark
        return await self.store.delete_range(self.id, within, mark)

    async def history(
        self,
        *,
        within: TimeRange = YEAR_2026,
        order: Order = Order.ASC,
        names: tuple[str, ...] = (),
        page: int = 1_000,
    ) -> list[Point]:
        """All points, read page by page."""
        found: list[Point] = []
        after: PageKey | None = None
        while True:
            query = HistoryQuery(self.id, within, page, order, names, after)
            answer = await self.store.history(query)
            assert len(answer.items) <= page
            found += answer.items
            if not answer.more:
                return found
            assert len(answer.items) == page
            after = PageKey(found[-1].timestamp_ms, found[-1].measurement)

    async def latest(self) -> list[LatestPoint]:
        return (await self.store.latest([self.id])).get(self.id, [])

    async def slots(
        self,
        width_ms: int,
        *,
        name: str = "t",
        within: TimeRange = YEAR_2026,
        budget: int = 100_000,
        edges: bool = False,
    ) -> list[Slot]:
        query = SlotQuery(self.id, name, within, width_ms, budget, edges)
        return await self.store.slots(query)

    async def samples(
        self, *, name: str = "t", within: TimeRange = YEAR_2026, budget: int = 100_000
    ) -> list[Sample]:
        return await self.store.samples(self.id, name, within, budget)
