"""Slots and samples: Cassandra groups the points of each day, the days are merged here."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from iotflow.domain.points import Point
from iotflow.domain.times import DAY_MS, TimeRange
from iotflow.stores.telemetry.cassandra.history import DAYS_A_READ, Reader
from iotflow.stores.telemetry.cassandra.rows import (
    DAY_S,
    Row,
    day_of,
    inclusive,
    point_of,
    time_bytes,
)
from iotflow.stores.telemetry.protocol import (
    Order,
    RangeTooLargeError,
    Sample,
    Slot,
    SlotQuery,
)

_DAYS_AT_ONCE = 3
_TEXT = 3

_COUNT = "SELECT count(*) FROM {keyspace}.telemetry_by_device WHERE {between}"
# What is selected beside aggregates is that of a slot's first row; rows come newest first.
_SLOTS = (
    "SELECT toUnixTimestamp(floor(timestamp, :width)), count(*), sum(value), min(value),"
    " max(value), max(value_type), {point} FROM {keyspace}.telemetry_by_device WHERE {between}"
    " AND measurement_name = ? GROUP BY floor(timestamp, :width) ALLOW FILTERING"
)
_NUMERIC_SLOTS = (
    "SELECT toUnixTimestamp(floor(timestamp, :width)), count(*), sum(value), min(value),"
    " max(value) FROM {keyspace}.telemetry_by_device WHERE {between}"
    " AND measurement_name = ? AND value_type < 3"
    " GROUP BY floor(timestamp, :width) ALLOW FILTERING"
)
_FIRSTS = (
    "SELECT toUnixTimestamp(floor(timestamp, :width)), {point}"
    " FROM {keyspace}.telemetry_by_device WHERE {between} AND measurement_name = ?"
    " GROUP BY floor(timestamp, :width) ORDER BY timestamp ASC, measurement_name DESC"
    " ALLOW FILTERING"
)
_SAMPLES = (
    "SELECT toUnixTimestamp(timestamp), value FROM {keyspace}.telemetry_by_device"
    " WHERE {between} AND measurement_name = ? AND value_type < 3 ALLOW FILTERING"
)

T = TypeVar("T")
Key = tuple[int, int, bytes, bytes]


async def slots(reader: Reader, query: SlotQuery) -> list[Slot]:
    """Statistics by slot, in order of time."""

    async def of_day(key: Key) -> list[Slot]:
        return await _slots_of_day(reader, key, query)

    by_day = await _by_day(reader, query.device_id, query.range, query.row_budget, of_day)
    found: list[Slot] = []
    for slot in (slot for of_day in by_day for slot in of_day):
        # A slot that does not end with a day goes on in the next one.
        if found and found[-1].start_ms == slot.start_ms:
            slot = _joined(found.pop(), slot)
        found.append(slot)
    return found


async def samples(
    reader: Reader, device_id: int, measurement: str, within: TimeRange, row_budget: int
) -> list[Sample]:
    """One measurement's numbers, in order of time."""

    async def of_day(key: Key) -> list[Sample]:
        rows = await reader.scan(_SAMPLES, (*key, measurement))
        return [Sample(timestamp_ms, value) for timestamp_ms, value in reversed(rows)]

    by_day = await _by_day(reader, device_id, within, row_budget, of_day)
    return [sample for of_day in by_day for sample in of_day]


async def _by_day(
    reader: Reader,
    device_id: int,
    within: TimeRange,
    row_budget: int,
    read: Callable[[Key], Awaitable[list[T]]],
) -> list[list[T]]:
    """What `read` gives of each day, in order of time, where all points fit in the budget.

    Some days are counted and read together, so that a range which is far too large costs no
    more than its first part.
    """
    keys = await _keys(reader, device_id, within)
    found: list[list[T]] = []
    points = 0
    for begin in range(0, len(keys), _DAYS_AT_ONCE):
        some = keys[begin : begin + _DAYS_AT_ONCE]
        counts = await asyncio.gather(*(reader.scan(_COUNT, key) for key in some))
        points += sum(rows[0][0] for rows in counts)
        if points > row_budget:
            raise RangeTooLargeError(row_budget)
        with_points = [key for key, rows in zip(some, counts, strict=True) if rows[0][0]]
        found += await asyncio.gather(*(read(key) for key in with_points))
    return found


async def _keys(reader: Reader, device_id: int, within: TimeRange) -> list[Key]:
    """The parameters of {between} for each day of a range, in order of time."""
    first_ms, last_ms = inclusive(within)
    first, last = day_of(first_ms), day_of(last_ms)
    days: list[int] = []
    while True:
        some = await reader.days(device_id, first, last, Order.ASC)
        days += some
        if len(some) < DAYS_A_READ:
            break
        first = some[-1] + 1
    return [
        (
            device_id,
            day * DAY_S,
            time_bytes(max(first_ms, day * DAY_MS)),
            time_bytes(min(last_ms, (day + 1) * DAY_MS - 1)),
        )
        for day in days
        if first_ms <= last_ms
    ]


async def _slots_of_day(reader: Reader, key: Key, query: SlotQuery) -> list[Slot]:
    parameters = (*key, query.measurement)
    width = f"{query.width_ms}ms"  # Cassandra groups by a constant alone
    rows = await reader.scan(_SLOTS.replace(":width", width), parameters)
    firsts: dict[int, Point] = {}
    if query.edges:
        first_rows = await reader.scan(_FIRSTS.replace(":width", width), parameters)
        firsts = {row[0]: point_of(row[1:]) for row in first_rows}
    numeric: dict[int, Row] | None = None
    if any(row[5] == _TEXT for row in rows):
        numeric_rows = await reader.scan(_NUMERIC_SLOTS.replace(":width", width), parameters)
        numeric = {row[0]: row for row in numeric_rows}
    return [_slot(row, numeric, firsts.get(row[0])) for row in reversed(rows)]


def _slot(row: Row, numeric: dict[int, Row] | None, first: Point | None) -> Slot:
    start_ms, count = row[0], row[1]
    last = None if first is None else point_of(row[6:])
    numbers = row if numeric is None else numeric.get(start_ms)
    if numbers is None:
        return Slot(start_ms, count, 0, None, None, None, first, last)
    return Slot(start_ms, count, numbers[1], numbers[2], numbers[3], numbers[4], first, last)


def _joined(one: Slot, other: Slot) -> Slot:
    """Two parts of a slot; `one` is the earlier."""
    return Slot(
        one.start_ms,
        one.count + other.count,
        one.numeric_count + other.numeric_count,
        _both(one.total, other.total, float.__add__),
        _both(one.minimum, other.minimum, min),
        _both(one.maximum, other.maximum, max),
        one.first,
        other.last,
    )


def _both(
    one: float | None, other: float | None, join: Callable[[float, float], float]
) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return join(one, other)
