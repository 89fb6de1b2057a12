"""Pages of points, latest points, names: reads that follow the key."""

from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

import msgspec

from iotflow.domain.points import DevicePoint, LatestPoint, Point
from iotflow.domain.times import TimeRange
from iotflow.stores.telemetry.protocol import FleetHistoryQuery, HistoryQuery, Order, Page
from iotflow.stores.telemetry.sqlite.readers import Readers
from iotflow.stores.telemetry.sqlite.rows import (
    device_point_of,
    latest_point_of,
    point_columns,
    point_of,
)

_DEVICES_A_STATEMENT = 500
_TIME, _NAME = attrgetter("timestamp_ms"), attrgetter("measurement")

_LATEST = (
    f"SELECT points.device_id, points.ingested_at, {point_columns()}"  # noqa: S608
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
_FLEET = f"""
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
SELECT points.device_id, {point_columns()}
FROM merged
CROSS JOIN points ON points.device_id = merged.device_id
    AND points.timestamp_ms = merged.timestamp_ms
WHERE NOT (points.device_id = :after_device AND points.timestamp_ms = :after_ms
           AND points.measurement <= :after_measurement)
LIMIT :wanted
"""  # noqa: S608


async def history(readers: Readers, query: HistoryQuery) -> Page[Point]:
    """One page; costs the page, not the range, unless most points are of other measurements."""
    start_ms, end_ms = query.range.start_ms, query.range.end_ms
    if query.after is not None:
        if query.order is Order.DESC:
            end_ms = min(end_ms, query.after.timestamp_ms + 1)
        else:
            start_ms = max(start_ms, query.after.timestamp_ms)
    limit = query.limit + 1
    points = await _points(readers, query, TimeRange(start_ms, end_ms), query.order, limit)
    if query.order is Order.DESC:
        points = await _names_rising(readers, query, points, limit)
    return Page(points[: query.limit], len(points) > query.limit)


async def _points(
    readers: Readers, query: HistoryQuery, within: TimeRange, order: Order, limit: int
) -> list[Point]:
    """In the order of the key, or all of it turned round: then nothing is sorted."""
    after_ms, after_measurement = 0, ""
    if query.after is not None:
        after_ms, after_measurement = query.after.timestamp_ms, query.after.measurement
    return await readers.rows(
        _history_sql(order, len(query.measurements)),
        (
            query.device_id,
            within.start_ms,
            within.end_ms,
            after_ms,
            after_measurement,
            *query.measurements,
            limit,
        ),
        point_of,
    )


async def _names_rising(
    readers: Readers, query: HistoryQuery, points: list[Point], limit: int
) -> list[Point]:
    """Those of one time by name, as pages have them: SQLite would take half as long again.

    Of the last time there may be more than `points` has, which then are its last names.
    """
    if len({point.timestamp_ms for point in points}) == len(points):
        return points
    if len(points) == limit:
        last_ms = points[-1].timestamp_ms
        earlier = [point for point in points if point.timestamp_ms != last_ms]
        if len(earlier) < limit - 1:
            within = TimeRange(last_ms, last_ms + 1)
            missing = limit - len(earlier)
            points = earlier + await _points(readers, query, within, Order.ASC, missing)
    points.sort(key=_NAME)
    points.sort(key=_TIME, reverse=True)
    return points


@lru_cache(maxsize=64)
def _history_sql(order: Order, names: int) -> str:
    direction = "DESC" if order is Order.DESC else "ASC"
    wanted = f"AND measurement IN ({','.join('?' * names)})" if names else ""
    return f"""
        SELECT {point_columns()}
        FROM points WHERE device_id = ? AND timestamp_ms >= ? AND timestamp_ms < ?
        AND NOT (timestamp_ms = ? AND measurement <= ?) {wanted}
        ORDER BY timestamp_ms {direction}, measurement {direction} LIMIT ?
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
    points = await readers.rows(_FLEET, parameters, device_point_of)
    return Page(points[: query.limit], len(points) > query.limit)


async def latest(readers: Readers, device_ids: Sequence[int]) -> dict[int, list[LatestPoint]]:
    """The newest points by device, in order of measurement."""
    wanted = sorted(set(device_ids))
    found: dict[int, list[LatestPoint]] = {}
    for begin in range(0, len(wanted), _DEVICES_A_STATEMENT):
        devices = _json(wanted[begin : begin + _DEVICES_A_STATEMENT])
        for device_id, point in await readers.rows(_LATEST, (devices,), latest_point_of):
            found.setdefault(device_id, []).append(point)
    return found


async def measurements(readers: Readers, device_id: int) -> frozenset[str]:
    """The names that have points now."""
    return frozenset(await readers.rows(_MEASUREMENTS, (device_id,), str))


def _json(values: Sequence[int]) -> str:
    return msgspec.json.encode(values).decode()
