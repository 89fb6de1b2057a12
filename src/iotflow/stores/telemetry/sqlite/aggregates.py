"""Slots and samples: reads that walk a range, within a budget of rows."""

from collections.abc import Callable
from typing import Any, TypeVar

from iotflow.domain.points import Point
from iotflow.domain.times import TimeRange
from iotflow.stores.telemetry.protocol import RangeTooLargeError, Sample, Slot, SlotQuery
from iotflow.stores.telemetry.sqlite.readers import SMALL_STEPS, Readers
from iotflow.stores.telemetry.sqlite.rows import point_columns, point_of

T = TypeVar("T")

_OVER_BUDGET = (
    "SELECT 1 FROM points WHERE device_id = ? AND timestamp_ms >= ? AND timestamp_ms < ?"
    " LIMIT 1 OFFSET ?"
)
# `value` is a double: a sum of it cannot overflow, as one of integers would. 3 is text.
_SLOTS = """
SELECT timestamp_ms / :width_ms AS slot, count(*) AS points, count(number) AS numbers,
       sum(number) AS total, min(number) AS minimum, max(number) AS maximum,
       min(timestamp_ms) AS first_ms, max(timestamp_ms) AS last_ms
FROM (SELECT timestamp_ms, CASE WHEN value_type <> 3 THEN value END AS number
      FROM points WHERE device_id = :device_id AND measurement = :measurement
      AND timestamp_ms >= :start_ms AND timestamp_ms < :end_ms)
GROUP BY slot
"""
_EDGE = """
CROSS JOIN points AS {0} ON {0}.device_id = :device_id
    AND {0}.timestamp_ms = slots.{0}_ms AND {0}.measurement = :measurement
"""
_SLOTS_WITH_EDGES = "SELECT slots.*, {}, {} FROM ({}) AS slots {} {}".format(  # noqa: S608
    point_columns("first"),
    point_columns("last"),
    _SLOTS,
    _EDGE.format("first"),
    _EDGE.format("last"),
)
_SAMPLES = """
SELECT timestamp_ms, value FROM points
WHERE device_id = :device_id AND measurement = :measurement
      AND timestamp_ms >= :start_ms AND timestamp_ms < :end_ms AND value_type <> 3
ORDER BY timestamp_ms
"""


async def slots(readers: Readers, query: SlotQuery) -> list[Slot]:
    """Statistics by slot, in order of time."""
    width_ms = query.width_ms

    def slot_of(
        slot: int,
        points: int,
        numbers: int,
        total: float | None,
        minimum: float | None,
        maximum: float | None,
        _first_ms: int,
        _last_ms: int,
        *edges: Any,
    ) -> Slot:
        first, last = _edges_of(*edges) if edges else (None, None)
        return Slot(
            slot * width_ms, points, numbers, total, minimum, maximum, first=first, last=last
        )

    parameters = _parameters(query.device_id, query.measurement, query.range)
    found = await _within_budget(
        readers,
        query.row_budget,
        _SLOTS_WITH_EDGES if query.edges else _SLOTS,
        parameters | {"width_ms": width_ms},
        slot_of,
    )
    return sorted(found, key=lambda slot: slot.start_ms)


def _edges_of(*columns: Any) -> tuple[Point, Point]:
    half = len(columns) // 2
    return point_of(*columns[:half]), point_of(*columns[half:])


async def samples(
    readers: Readers, device_id: int, measurement: str, within: TimeRange, row_budget: int
) -> list[Sample]:
    """One measurement's numbers, in order of time."""
    parameters = _parameters(device_id, measurement, within)
    return await _within_budget(readers, row_budget, _SAMPLES, parameters, Sample)


def _parameters(device_id: int, measurement: str, within: TimeRange) -> dict[str, Any]:
    return {
        "device_id": device_id,
        "measurement": measurement,
        "start_ms": within.start_ms,
        "end_ms": within.end_ms,
    }


async def _within_budget(
    readers: Readers,
    row_budget: int,
    sql: str,
    parameters: dict[str, Any],
    convert: Callable[..., T],
) -> list[T]:
    # A statement that walks a range takes more than one step for each row. So one that was small
    # cannot have met more rows than SMALL_STEPS, and a larger budget need not be checked.
    if row_budget >= SMALL_STEPS:
        found = readers.small(sql, parameters, convert)
        if found is not None:
            return found
    bounds = (parameters["device_id"], parameters["start_ms"], parameters["end_ms"], row_budget)
    if await readers.rows(_OVER_BUDGET, bounds, int):
        raise RangeTooLargeError(row_budget)
    return await readers.large(sql, parameters, convert)
