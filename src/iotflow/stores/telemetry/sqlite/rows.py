"""Points as statements select them. Every column of a row costs a read a tenth of it."""

from typing import Any

from iotflow.domain.points import DevicePoint, LatestPoint, Point, Value


def point_columns(table: str = "points") -> str:
    """What a statement selects of a point, for `point_of`."""
    # The value as it is, and a mark where Python has to be told what it is.
    return f"""
        {table}.timestamp_ms, {table}.measurement,
        CASE {table}.value_type WHEN 1 THEN {table}.int_value WHEN 3 THEN {table}.text_value
             ELSE {table}.value END,
        CASE {table}.value_type WHEN 0 THEN {table}.int_value WHEN 2 THEN {_BOOLEAN} END,
        {table}.unit
    """


# A float's mark is NEGATIVE_ZERO (upserts.py) or NULL.
_BOOLEAN = 1


def point_of(timestamp_ms: int, measurement: str, value: Any, mark: int | None, unit: str) -> Point:
    if mark is None:
        return Point(timestamp_ms, measurement, value, unit)
    return Point(timestamp_ms, measurement, _marked(value, mark), unit)


def device_point_of(device_id: int, *columns: Any) -> DevicePoint:
    """The device's id stands before the point's columns."""
    return DevicePoint(device_id, point_of(*columns))


def latest_point_of(
    device_id: int,
    written_us: int,
    timestamp_ms: int,
    measurement: str,
    value: Any,
    mark: int | None,
    unit: str,
) -> tuple[int, LatestPoint]:
    """`ingested_at` stands between the device's id and the point's columns."""
    typed = value if mark is None else _marked(value, mark)
    return device_id, LatestPoint(timestamp_ms, measurement, typed, unit, written_us)


def _marked(value: float, mark: int) -> Value:
    return value != 0 if mark == _BOOLEAN else -0.0
