"""Walks over points by the submissions that wrote them, and over the devices that have any."""

from iotflow.stores.telemetry.postgres.connections import Connections
from iotflow.stores.telemetry.protocol import (
    DevicePage,
    MarkedPoint,
    MarkPage,
    MarkQuery,
    PageKey,
)

# A page looks at so many points and no more. The first row says how many and which was the last.
_MARKS = """
WITH page AS MATERIALIZED (
    SELECT timestamp_ms, measurement, user_id, ingested_at FROM telemetry.points
    WHERE device_id = $1 AND timestamp_ms >= $2 AND timestamp_ms < $3
      AND NOT (timestamp_ms = $4 AND measurement <= $5)
    ORDER BY timestamp_ms DESC, measurement LIMIT $6
)
(
    SELECT timestamp_ms, measurement, (SELECT count(*) FROM page), -1::bigint
    FROM page ORDER BY timestamp_ms, measurement DESC LIMIT 1
)
UNION ALL
(
    SELECT timestamp_ms, measurement, user_id, ingested_at FROM page
    WHERE ingested_at >= $7 AND ingested_at < $8
    ORDER BY timestamp_ms DESC, measurement
)
"""
# Each step looks up the next device in the index, however many rows the one before it has.
_DEVICES = """
WITH RECURSIVE known (device_id) AS (
    SELECT min(device_id) FROM telemetry.latest WHERE device_id > $1
    UNION ALL
    SELECT (SELECT min(device_id) FROM telemetry.latest WHERE device_id > known.device_id)
    FROM known WHERE known.device_id IS NOT NULL
)
SELECT device_id FROM known WHERE device_id IS NOT NULL LIMIT $2
"""


async def marks(connections: Connections, query: MarkQuery) -> MarkPage:
    """One page."""
    end_ms, after = query.range.end_ms, query.after
    if after is not None:
        end_ms = min(end_ms, after.timestamp_ms + 1)
    parameters = (
        query.device_id,
        query.range.start_ms,
        end_ms,
        -1 if after is None else after.timestamp_ms,
        "" if after is None else after.measurement,
        query.limit,
        query.from_us,
        query.to_us,
    )
    found = await connections.rows(_MARKS, parameters, MarkedPoint)
    if not found:
        return MarkPage([], None)
    # Its columns are those of a point: the third is how many points were looked at.
    last, *points = found
    more = last.user_id == query.limit
    return MarkPage(points, PageKey(last.timestamp_ms, last.measurement) if more else None)


async def devices(connections: Connections, after: int | None, limit: int) -> DevicePage:
    """One page, by their ids."""
    parameters = (-(2**63) if after is None else after, limit)
    found = await connections.rows(_DEVICES, parameters, int)
    return DevicePage(found, found[-1] if len(found) == limit else None)
