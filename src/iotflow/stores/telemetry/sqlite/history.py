"""Pages of points, latest points, names: reads that follow the key."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from iotflow.domain.points import DevicePoint, LatestPoint, Point, Value
from iotflow.stores.telemetry.protocol import (
    FleetHistoryQuery,
    HistoryQuery,
    Order,
    Page,
    value_of,
)
from iotflow.stores.telemetry.sqlite.readers import Readers
from iotflow.stores.telemetry.sqlite.upserts import NEGATIVE_ZERO

_DEVICES_A_STATEMENT = 500
_FLOAT = 0  # an attribute of ValueType would be looked up at every row

_LATEST = (
    "SELECT latest.device_id, latest.timestamp_ms, latest.measurement,"
    " value_type, points.value, int_value, text_value, unit, ingested_at"
    " FROM json_each(?) AS device"
    " CROSS JOIN latest ON latest.device_id = device.value"
    " CROSS JOIN points ON points.device_id = latest.device_id"
    " AND points.timestamp_ms = latest.timestamp_ms"
    " AND points.measurement = latest.measurement"
)
_MEASUREMENTS = "SELECT measurement FROM latest WHERE device_id = ?"

# A merge of the devices, newest first: the queue of the recursion holds the newest time of each
# device that was not given out yet, and a time that is taken out puts its predecessor in. So this
# costs a look-up for each device and one for each time of the page, whatever the range holds.
# The joins keep that order: CROSS JOIN is never turned round, and points are stored in the order
# of their key; sorting would need all of it first. LIMIT -1 is no limit, but without any SQLite
# 3.40 takes the recursion's ORDER BY for one that a join may ignore.
_FLEET = """
WITH RECURSIVE merged (timestamp_ms, device_id) AS (
    SELECT (
        SELECT timestamp_ms FROM points
        WHERE device_id = device.value AND timestamp_ms >= :start_ms
          AND timestamp_ms < :before_ms + (device.value >= :after_device)
        ORDER BY timestamp_ms DESC LIMIT 1
    ), device.value FROM json_each(:devices) AS device
    UNION ALL
    SELECT (
        SELECT timestamp_ms FROM points
        WHERE device_id = merged.device_id AND timestamp_ms >= :start_ms
          AND timestamp_ms < merged.timestamp_ms
        ORDER BY timestamp_ms DESC LIMIT 1
    ), merged.device_id FROM merged WHERE merged.timestamp_ms IS NOT NULL
    ORDER BY 1 DESC, 2 LIMIT -1
)
SELECT points.device_id, points.timestamp_ms, points.measurement,
       value_type, value, int_value, text_value, unit
FROM merged
CROSS JOIN points ON points.device_id = merged.device_id
    AND points.timestamp_ms = merged.timestamp_ms
WHERE NOT (points.device_id = :after_device AND points.timestamp_ms = :after_ms
           AND points.measurement <= :after_measurement)
LIMIT :wanted
"""


def point_of(
    timestamp_ms: int,
    measurement: str,
    kind: int,
    value: float,
    integer: int | None,
    text: str | None,
    unit: str,
) -> Point:
    """A point from its columns, in the order in which every statement here has them."""
    return Point(timestamp_ms, measurement, _value_of(kind, value, integer, text), unit)


def _value_of(kind: int, value: float, integer: int | None, text: str | None) -> Value:
    if kind == _FLOAT and integer == NEGATIVE_ZERO:
        return -0.0
    return value_of(kind, value, integer, text)


async def history(readers: Readers, query: HistoryQuery) -> Page[Point]:
    """One page; costs the page, not the range, unless most points are of other measurements."""
    start_ms, end_ms = query.range.start_ms, query.range.end_ms
    after_ms, after_measurement = 0, ""
    if query.after is not None:
        after_ms, after_measurement = query.after.timestamp_ms, query.after.measurement
        if query.order is Order.DESC:
            end_ms = min(end_ms, after_ms + 1)
        else:
            start_ms = max(start_ms, after_ms)
    points = await readers.rows(
        _history_sql(query.order, len(query.measurements)),
        (
            query.device_id,
            start_ms,
            end_ms,
            after_ms,
            after_measurement,
            *query.measurements,
            query.limit + 1,
        ),
        point_of,
    )
    return Page(points[: query.limit], len(points) > query.limit)


@lru_cache(maxsize=64)
def _history_sql(order: Order, names: int) -> str:
    # The order goes by the key, but for equal times: SQLite sorts them alone, block by block.
    direction = "DESC" if order is Order.DESC else "ASC"
    wanted = f"AND measurement IN ({','.join('?' * names)})" if names else ""
    return f"""
        SELECT timestamp_ms, measurement, value_type, value, int_value, text_value, unit
        FROM points WHERE device_id = ? AND timestamp_ms >= ? AND timestamp_ms < ?
        AND NOT (timestamp_ms = ? AND measurement <= ?) {wanted}
        ORDER BY timestamp_ms {direction}, measurement LIMIT ?
    """  # noqa: S608


async def fleet_history(readers: Readers, query: FleetHistoryQuery) -> Page[DevicePoint]:
    """One page across devices."""
    parameters: dict[str, Any] = {
        "devices": _json(sorted(set(query.device_ids))),
        "start_ms": query.range.start_ms,
        "before_ms": query.range.end_ms - 1,
        "after_ms": 0,
        "after_device": -1,
        "after_measurement": "",
        "wanted": query.limit + 1,
    }
    after = query.after
    if after is not None and after.timestamp_ms < query.range.end_ms:
        parameters |= {
            "before_ms": after.timestamp_ms,
            "after_ms": after.timestamp_ms,
            "after_device": after.device_id,
            "after_measurement": after.measurement,
        }
    points = await readers.rows(_FLEET, parameters, _device_point)
    return Page(points[: query.limit], len(points) > query.limit)


def _device_point(device_id: int, *columns: Any) -> DevicePoint:
    return DevicePoint(device_id, point_of(*columns))


async def latest(readers: Readers, device_ids: Sequence[int]) -> dict[int, list[LatestPoint]]:
    """The newest points by device, in order of measurement."""
    wanted = sorted(set(device_ids))
    found: dict[int, list[LatestPoint]] = {}
    for begin in range(0, len(wanted), _DEVICES_A_STATEMENT):
        devices = _json(wanted[begin : begin + _DEVICES_A_STATEMENT])
        for device_id, point in await readers.rows(_LATEST, (devices,), _latest_point):
            found.setdefault(device_id, []).append(point)
    return found


def _latest_point(
    device_id: int,
    timestamp_ms: int,
    measurement: str,
    kind: int,
    value: float,
    integer: int | None,
    text: str | None,
    unit: str,
    written_us: int,
) -> tuple[int, LatestPoint]:
    typed = _value_of(kind, value, integer, text)
    return device_id, LatestPoint(timestamp_ms, measurement, typed, unit, written_us)


async def measurements(readers: Readers, device_id: int) -> frozenset[str]:
    """The names that have points now."""
    return frozenset(await readers.rows(_MEASUREMENTS, (device_id,), str))


def _json(values: Sequence[int]) -> str:
    return msgspec.json.encode(values).decode()
