"""Pages across devices: a merge of the devices' own pages, asked for in small pieces.

A first round takes a few points of every device. Only where a device's piece ends inside of the
page may it have more that belong there: those are asked again, for pieces that grow. So a page
costs about what it holds and a look-up for each device, whatever the range holds.
"""

from typing import Any

import msgspec

from iotflow.domain.points import DevicePoint
from iotflow.stores.telemetry.postgres.connections import Connections
from iotflow.stores.telemetry.postgres.history import POINT_COLUMNS, point_of
from iotflow.stores.telemetry.protocol import FleetHistoryQuery, Page

# Each device goes on at or below `upto_ms`, and there after `after_measurement`.
_PIECES = f"""
SELECT piece.* FROM unnest($1::bigint[], $2::bigint[], $3::text[])
    AS device (id, upto_ms, after_measurement)
CROSS JOIN LATERAL (
    SELECT device_id, {POINT_COLUMNS} FROM telemetry.points
    WHERE device_id = device.id AND timestamp_ms >= $4 AND timestamp_ms <= device.upto_ms
    AND NOT (timestamp_ms = device.upto_ms AND measurement <= device.after_measurement)
    ORDER BY timestamp_ms DESC, measurement LIMIT $5
) AS piece
"""  # noqa: S608

_Key = tuple[int, int, str]


class _Position(msgspec.Struct, frozen=True, gc=False):
    """Where a device goes on."""

    upto_ms: int
    after_measurement: str = ""


async def fleet_history(connections: Connections, query: FleetHistoryQuery) -> Page[DevicePoint]:
    """One page across devices."""
    wanted = query.limit + 1
    positions = {device: _first(query, device) for device in sorted(set(query.device_ids))}
    size = min(wanted, 2 * (wanted // max(1, len(positions))) + 1)
    found: list[DevicePoint] = []
    while positions:
        pieces = await _pieces(connections, positions, query.range.start_ms, size)
        found = sorted([*found, *pieces], key=_order)[:wanted]
        full = len(found) == wanted
        positions = {
            device: _Position(last.timestamp_ms, last.measurement)
            for device, last in _ends(pieces, size).items()
            if not full or _order(DevicePoint(device, last)) < _order(found[-1])
        }
        size = min(wanted, size * 4)
    return Page(found[: query.limit], len(found) > query.limit)


def _first(query: FleetHistoryQuery, device_id: int) -> _Position:
    after, newest_ms = query.after, query.range.end_ms - 1
    if after is None or after.timestamp_ms > newest_ms:
        return _Position(newest_ms)
    if device_id == after.device_id:
        return _Position(after.timestamp_ms, after.measurement)
    return _Position(after.timestamp_ms - (device_id < after.device_id))


async def _pieces(
    connections: Connections, positions: dict[int, _Position], start_ms: int, size: int
) -> list[DevicePoint]:
    parameters = (
        list(positions),
        [position.upto_ms for position in positions.values()],
        [position.after_measurement for position in positions.values()],
        start_ms,
        size,
    )
    return await connections.rows(_PIECES, parameters, _device_point)


def _device_point(device_id: int, *columns: Any) -> DevicePoint:
    return DevicePoint(device_id, point_of(*columns))


def _ends(pieces: list[DevicePoint], size: int) -> dict[int, Any]:
    """The last point of each piece that is full, so that its device may have more."""
    counts: dict[int, int] = {}
    last: dict[int, Any] = {}
    for piece in pieces:
        counts[piece.device_id] = counts.get(piece.device_id, 0) + 1
        last[piece.device_id] = piece.point
    return {device: point for device, point in last.items() if counts[device] == size}


def _order(found: DevicePoint) -> _Key:
    return (-found.point.timestamp_ms, found.device_id, found.point.measurement)
