"""Points: what devices measure."""

from enum import IntEnum

import msgspec

Value = float | int | bool | str

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


class ValueType(IntEnum):
    """How a value is stored. The numbers are on disk: never renumber."""

    FLOAT = 0
    INTEGER = 1
    BOOLEAN = 2
    TEXT = 3


VALUE_TYPES: dict[type, ValueType] = {
    float: ValueType.FLOAT,
    int: ValueType.INTEGER,
    bool: ValueType.BOOLEAN,
    str: ValueType.TEXT,
}


class Point(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One measurement at one time. (device, timestamp, measurement) identifies it.

    `timestamp_ms` is epoch milliseconds in UTC. `value` is a finite float, an
    integer within 64 bits signed, a boolean, or text; its Python type is its type.
    `unit` is '' for none.
    """

    timestamp_ms: int
    measurement: str
    value: Value
    unit: str = ""


class LatestPoint(msgspec.Struct, frozen=True, gc=False):
    """A measurement's newest point by event time, with the write that made it.

    Of two writes at one `timestamp_ms` the higher `written_us` is the true one.
    """

    timestamp_ms: int
    measurement: str
    value: Value
    unit: str
    written_us: int


class DevicePoint(msgspec.Struct, frozen=True, gc=False):
    """A point and whose it is, for reads that cross devices."""

    device_id: int
    point: Point


class Submission(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Points of one device that are written together and share one write mark.

    `points` hold each (timestamp, measurement) once and at least one point.
    `written_us` is epoch microseconds, unique for the device and rising in
    the order of writing (see `domain.clock.WriteClock`).
    """

    device_id: int
    user_id: int
    points: tuple[Point, ...]
    written_us: int
