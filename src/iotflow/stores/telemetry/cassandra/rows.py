"""Between points and the columns that hold them."""

from typing import Any

from iotflow.domain.points import LatestPoint, Point
from iotflow.domain.times import DAY_MS, MAX_TIMESTAMP_MS, TimeRange
from iotflow.stores.telemetry.protocol import value_of

DAY_S = 86_400
_EPOCH_ORDINAL = 719_163

Row = tuple[Any, ...]


def time_bytes(timestamp_ms: int) -> bytes:
    """What {time} in a statement takes."""
    return timestamp_ms.to_bytes(8, "big")


def day_of(timestamp_ms: int) -> int:
    """The number of the UTC day, from 1970-01-01. A `date` parameter takes it times DAY_S."""
    return timestamp_ms // DAY_MS


def day_number(date: Any) -> int:
    """The same of a `date` that was read."""
    return date.toordinal() - _EPOCH_ORDINAL


def inclusive(within: TimeRange) -> tuple[int, int]:
    """The first and last millisecond of a range, cut to the times that points can have."""
    return max(within.start_ms, 0), min(within.end_ms - 1, MAX_TIMESTAMP_MS)


def point_of(row: Row) -> Point:
    """A point from the columns {point}."""
    timestamp_ms, name, kind, value, integer, text, unit = row[:7]
    if kind == 0:
        return Point(timestamp_ms, name, value, unit)
    return Point(timestamp_ms, name, value_of(kind, value, integer, text), unit)


def latest_point_of(row: Row) -> LatestPoint:
    """A point from the columns {point} and its mark."""
    timestamp_ms, name, kind, value, integer, text, unit, written_us = row
    typed = value_of(kind, value, integer, text)
    return LatestPoint(timestamp_ms, name, typed, unit, written_us)
