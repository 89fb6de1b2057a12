"""Pages of points, latest points, names: reads that follow the key."""

from collections.abc import Sequence
from typing import Any

from iotflow.domain.points import LatestPoint, Point
from iotflow.stores.telemetry.postgres.connections import Connections
from iotflow.stores.telemetry.protocol import HistoryQuery, Order, Page, value_of

POINT_COLUMNS = "timestamp_ms, measurement, value_type, value, int_value, text_value, unit"

_DEVICES_A_STATEMENT = 500

# Rows come in the order of the key but for equal times, which the server sorts block by block.
# ORDER BY names the device too, though there is one alone, so that it is the key's own order.
_HISTORY = """
SELECT {columns} FROM telemetry.points
WHERE device_id = $1 AND timestamp_ms >= $2 AND timestamp_ms < $3
AND NOT (timestamp_ms = $4 AND measurement <= $5) {wanted}
ORDER BY timestamp_ms {direction}, measurement LIMIT $6
"""
_WANTED = "AND measurement = ANY($7::text[])"
_STATEMENTS = {
    (order, filtered): _HISTORY.format(
        columns=POINT_COLUMNS,
        wanted=_WANTED if filtered else "",
        direction="DESC" if order is Order.DESC else "ASC",
    )
    for order in Order
    for filtered in (False, True)
}
_LATEST = """
SELECT latest.device_id, latest.timestamp_ms, latest.measurement,
       value_type, value, int_value, text_value, unit, ingested_at
FROM telemetry.latest AS latest JOIN telemetry.points AS points
     ON points.device_id = latest.device_id AND points.timestamp_ms = latest.timestamp_ms
     AND points.measurement = latest.measurement
WHERE latest.device_id = ANY($1::bigint[])
ORDER BY latest.device_id, latest.measurement
"""
_MEASUREMENTS = "SELECT measurement FROM telemetry.latest WHERE device_id = $1"


def point_of(
    timestamp_ms: int,
    measurement: str,
    kind: int,
    value: float,
    integer: int | None,
    text: str | None,
    unit: str,
) -> Point:
    """A point from POINT_COLUMNS."""
    return Point(timestamp_ms, measurement, value_of(kind, value, integer, text), unit)


async def history(connections: Connections, query: HistoryQuery) -> Page[Point]:
    """One page; costs the page, not the range, unless most points are of other measurements."""
    start_ms, end_ms = query.range.start_ms, query.range.end_ms
    after_ms, after_measurement = -1, ""
    if query.after is not None:
        after_ms, after_measurement = query.after.timestamp_ms, query.after.measurement
        if query.order is Order.DESC:
            end_ms = min(end_ms, after_ms + 1)
        else:
            start_ms = max(start_ms, after_ms)
    parameters: list[Any] = [
        query.device_id, start_ms, end_ms, after_ms, after_measurement, query.limit + 1
    ]  # fmt: skip
    if query.measurements:
        parameters.append(query.measurements)
    sql = _STATEMENTS[query.order, bool(query.measurements)]
    points = await connections.rows(sql, parameters, point_of)
    return Page(points[: query.limit], len(points) > query.limit)


async def latest(
    connections: Connections, device_ids: Sequence[int]
) -> dict[int, list[LatestPoint]]:
    """The newest points by device, in order of measurement."""
    wanted = sorted(set(device_ids))
    found: dict[int, list[LatestPoint]] = {}
    for begin in range(0, len(wanted), _DEVICES_A_STATEMENT):
        devices = wanted[begin : begin + _DEVICES_A_STATEMENT]
        for device_id, point in await connections.rows(_LATEST, (devices,), _latest_point):
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
    typed = value_of(kind, value, integer, text)
    return device_id, LatestPoint(timestamp_ms, measurement, typed, unit, written_us)


async def measurements(connections: Connections, device_id: int) -> frozenset[str]:
    """The names that have points now."""
    return frozenset(await connections.rows(_MEASUREMENTS, (device_id,), str))
