"""Slots and samples: reads that walk a range, within a budget of rows."""

from typing import Any

import asyncpg

from iotflow.domain.points import Point
from iotflow.domain.times import TimeRange
from iotflow.stores.telemetry.postgres.connections import LARGE_READ_S, Connections
from iotflow.stores.telemetry.postgres.history import point_of
from iotflow.stores.telemetry.protocol import RangeTooLargeError, Sample, Slot, SlotQuery

_OVER_BUDGET = """
SELECT 1 FROM telemetry.points WHERE device_id = $1 AND timestamp_ms >= $2 AND timestamp_ms < $3
LIMIT 1 OFFSET $4
"""
_RANGE = """
FROM telemetry.points WHERE device_id = $1 AND measurement = $2
AND timestamp_ms >= $3 AND timestamp_ms < $4
"""
# `value` is a double: a sum of integers cannot overflow. 3 is text.
_SLOTS = f"""
SELECT timestamp_ms / $5::bigint AS slot, count(*) AS points, count(number) AS numbers,
       {{total}} AS total, min(number) AS minimum, max(number) AS maximum,
       min(timestamp_ms) AS first_ms, max(timestamp_ms) AS last_ms
FROM (SELECT timestamp_ms, CASE WHEN value_type <> 3 THEN value END AS number {_RANGE}) AS numbers
GROUP BY slot
"""  # noqa: S608
# LIMIT has each edge looked up by its key. Of a device whose points are newer than the server's
# statistics it expects one row: a plain join compares every slot with every point.
_EDGE = """
CROSS JOIN LATERAL (
    SELECT * FROM telemetry.points AS point
    WHERE point.device_id = $1 AND point.timestamp_ms = slots.{0}_ms AND point.measurement = $2
    LIMIT 1
) AS {0}
"""
_EDGE_COLUMNS = """
{0}.timestamp_ms, {0}.measurement,
{0}.value_type, {0}.value, {0}.int_value, {0}.text_value, {0}.unit
"""
_TOTAL = "sum(number)"
# Where doubles overflow the server refuses to add them. So wide sums are added as decimals,
# which is slow, and are infinite past the largest double.
_WIDE_TOTAL = """
CASE WHEN abs(sum(number::numeric)) > 1.797693134862315e308::numeric
     THEN sign(sum(number::numeric))::double precision * 'Infinity'::double precision
     ELSE sum(number::numeric)::double precision END
"""
_SAMPLES = f"SELECT timestamp_ms, value {_RANGE} AND value_type <> 3 ORDER BY timestamp_ms"


def _slots_sql(total: str, edges: bool) -> str:
    slots = _SLOTS.format(total=total)
    if not edges:
        return slots
    columns = f"{_EDGE_COLUMNS.format('first')}, {_EDGE_COLUMNS.format('last')}"
    joins = f"{_EDGE.format('first')} {_EDGE.format('last')}"
    return f"SELECT slots.*, {columns} FROM ({slots}) AS slots {joins}"  # noqa: S608


async def slots(connections: Connections, query: SlotQuery) -> list[Slot]:
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

    await _check_budget(connections, query.device_id, query.range, query.row_budget)
    parameters = (*_parameters(query.device_id, query.measurement, query.range), width_ms)
    try:
        found = await connections.rows(
            _slots_sql(_TOTAL, query.edges), parameters, slot_of, LARGE_READ_S
        )
    except ValueError as error:
        if not isinstance(error.__cause__, asyncpg.NumericValueOutOfRangeError):
            raise
        found = await connections.rows(
            _slots_sql(_WIDE_TOTAL, query.edges), parameters, slot_of, LARGE_READ_S
        )
    return sorted(found, key=lambda slot: slot.start_ms)


def _edges_of(*columns: Any) -> tuple[Point, Point]:
    half = len(columns) // 2
    return point_of(*columns[:half]), point_of(*columns[half:])


async def samples(
    connections: Connections, device_id: int, measurement: str, within: TimeRange, row_budget: int
) -> list[Sample]:
    """One measurement's numbers, in order of time."""
    await _check_budget(connections, device_id, within, row_budget)
    parameters = _parameters(device_id, measurement, within)
    return await connections.rows(_SAMPLES, parameters, Sample, LARGE_READ_S)


def _parameters(device_id: int, measurement: str, within: TimeRange) -> tuple[Any, ...]:
    return (device_id, measurement, within.start_ms, within.end_ms)


async def _check_budget(
    connections: Connections, device_id: int, within: TimeRange, row_budget: int
) -> None:
    bounds = (device_id, within.start_ms, within.end_ms, row_budget)
    if await connections.rows(_OVER_BUDGET, bounds, int, LARGE_READ_S):
        raise RangeTooLargeError(row_budget)
