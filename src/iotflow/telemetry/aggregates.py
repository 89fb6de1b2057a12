"""Aggregates: slots from the store, merged into the windows that were asked for."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from zoneinfo import ZoneInfo

from iotflow.domain.points import Value
from iotflow.domain.times import TimeRange
from iotflow.errors import InvalidInputError
from iotflow.stores.telemetry.protocol import Sample, Slot, SlotQuery, TelemetryStore
from iotflow.telemetry import windows
from iotflow.telemetry.windows import Window


class Aggregation(StrEnum):
    MEAN = "mean"
    SUM = "sum"
    MIN = "min"
    MAX = "max"
    COUNT = "count"
    FIRST = "first"
    LAST = "last"


# These count every type of value; the others numbers and booleans alone.
_ANY_TYPE = frozenset({Aggregation.COUNT, Aggregation.FIRST, Aggregation.LAST})
_EDGES = frozenset({Aggregation.FIRST, Aggregation.LAST})


@dataclass(slots=True)
class WindowStats:
    """What the points of one window come to. `total` is a list of slot sums."""

    start_ms: int
    count: int = 0
    numeric_count: int = 0
    totals: list[float] = field(default_factory=list[float])
    minimum: float | None = None
    maximum: float | None = None
    first: Value | None = None
    last: Value | None = None

    def add(self, slot: Slot) -> None:
        """Take in a slot. Slots come in order of time."""
        if slot.first is not None and not self.count:
            self.first = slot.first.value
        if slot.last is not None:
            self.last = slot.last.value
        self.count += slot.count
        self.numeric_count += slot.numeric_count
        if slot.total is not None:
            self.totals.append(slot.total)
        if slot.minimum is not None:
            self.minimum = slot.minimum if self.minimum is None else min(self.minimum, slot.minimum)
        if slot.maximum is not None:
            self.maximum = slot.maximum if self.maximum is None else max(self.maximum, slot.maximum)

    def value(self, aggregation: Aggregation) -> Value | None:
        """None where the window holds nothing to aggregate, or the sum passes every float."""
        match aggregation:
            case Aggregation.COUNT:
                return self.count
            case Aggregation.MIN:
                return self.minimum
            case Aggregation.MAX:
                return self.maximum
            case Aggregation.FIRST:
                return self.first
            case Aggregation.LAST:
                return self.last
            case Aggregation.SUM:
                return self._sum()
            case Aggregation.MEAN:
                total = self._sum()
                return None if total is None else total / self.numeric_count

    def _sum(self) -> float | None:
        if not self.totals:
            return None
        try:
            total = math.fsum(self.totals)
        except (OverflowError, ValueError):
            return None
        return total if math.isfinite(total) else None


@dataclass(frozen=True, slots=True)
class AggregateQuery:
    device_id: int
    field: str
    within: TimeRange
    window: Window
    zone: ZoneInfo
    aggregations: tuple[Aggregation, ...]
    fill: bool


class Aggregates:
    """Budgets are in points that a query may read."""

    def __init__(self, store: TelemetryStore, row_budget: int, chart_row_budget: int) -> None:
        self._store = store
        self._row_budget = row_budget
        self._chart_row_budget = chart_row_budget

    async def windows(self, query: AggregateQuery) -> list[WindowStats]:
        """Statistics by window, in order of time; with `fill` also of windows without points.

        Raises:
            InvalidInputError: `too_many_windows`, `range_too_large`, or `not_numeric` where
                numbers are asked for and all points are of other types.
        """
        edges = windows.edges(query.window, query.zone, query.within)
        slots = await self._store.slots(
            SlotQuery(
                device_id=query.device_id,
                measurement=query.field,
                range=query.within,
                # Every edge is a multiple of this, so that no slot lies across an edge.
                width_ms=math.gcd(*edges),
                row_budget=self._row_budget,
                edges=not _EDGES.isdisjoint(query.aggregations),
            )
        )
        found = list(_merged(slots, edges))
        _require_numbers(query, found)
        return found if query.fill else [each for each in found if each.count]

    async def samples(self, device_id: int, measurement: str, within: TimeRange) -> list[Sample]:
        """The numbers of a range, for a chart.

        Raises:
            InvalidInputError: `range_too_large`, or `not_numeric` where there is text alone.
        """
        samples = await self._store.samples(device_id, measurement, within, self._chart_row_budget)
        if not samples:
            whole = SlotQuery(
                device_id, measurement, within, max(1, within.end_ms), self._row_budget
            )
            if any(slot.count for slot in await self._store.slots(whole)):
                raise _not_numeric()
        return samples


def _merged(slots: Sequence[Slot], edges: Sequence[int]) -> Iterator[WindowStats]:
    position = 0
    for start_ms, end_ms in pairwise(edges):
        stats = WindowStats(start_ms)
        while position < len(slots) and slots[position].start_ms < end_ms:
            stats.add(slots[position])
            position += 1
        yield stats


def _require_numbers(query: AggregateQuery, found: Sequence[WindowStats]) -> None:
    if _ANY_TYPE.issuperset(query.aggregations):
        return
    if any(each.count for each in found) and not any(each.numeric_count for each in found):
        raise _not_numeric()


def _not_numeric() -> InvalidInputError:
    return InvalidInputError.of_field(
        "field", "not_numeric", "All points of this range are text. Ask for count, first or last."
    )
