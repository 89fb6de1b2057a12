"""Walks over points by the submissions that wrote them, and over the devices that have any."""

from iotflow.stores.telemetry.protocol import (
    DevicePage,
    MarkedPoint,
    MarkPage,
    MarkQuery,
    PageKey,
)
from iotflow.stores.telemetry.sqlite.readers import Readers

# A page looks at so many points and no more. The first row says how many and which was the last.
_MARKS = """
WITH page AS MATERIALIZED (
    SELECT timestamp_ms, measurement, user_id, ingested_at FROM points
    WHERE device_id = :device_id AND timestamp_ms >= :start_ms AND timestamp_ms < :end_ms
      AND NOT (timestamp_ms = :after_ms AND measurement <= :after_measurement)
    ORDER BY timestamp_ms DESC, measurement LIMIT :wanted
)
SELECT * FROM (
    SELECT timestamp_ms, measurement, (SELECT count(*) FROM page), -1
    FROM page ORDER BY timestamp_ms, measurement DESC LIMIT 1
)
UNION ALL
SELECT * FROM (
    SELECT timestamp_ms, measurement, user_id, ingested_at FROM page
    WHERE ingested_at >= :from_us AND ingested_at < :to_us
    ORDER BY timestamp_ms DESC, measurement
)
"""
# Each step looks up the next device in the index, however many rows the one before it has.
_DEVICES = """
WITH RECURSIVE known (device_id) AS (
    SELECT min(device_id) FROM latest WHERE device_id > :after
    UNION ALL
    SELECT (SELECT min(device_id) FROM latest WHERE device_id > known.device_id)
    FROM known WHERE known.device_id IS NOT NULL LIMIT :wanted
)
SELECT device_id FROM known WHERE device_id IS NOT NULL
"""


async def marks(readers: Readers, query: MarkQuery) -> MarkPage:
    """One page."""
    end_ms, after = query.range.end_ms, query.after
    if after is not None:
        end_ms = min(end_ms, after.timestamp_ms + 1)
    parameters = {
        "device_id": query.device_id,
        "start_ms": query.range.start_ms,
        "end_ms": end_ms,
        "after_ms": -1 if after is None else after.timestamp_ms,
        "after_measurement": "" if after is None else after.measurement,
        "from_us": query.from_us,
        "to_us": query.to_us,
        "wanted": query.limit,
    }
    found = await readers.rows(_MARKS, parameters, MarkedPoint)
    if not found:
        return MarkPage([], None)
    # Its columns are those of a point: the third is how many points were looked at.
    last, *points = found
    more = last.user_id == query.limit
    return MarkPage(points, PageKey(last.timestamp_ms, last.measurement) if more else None)


async def devices(readers: Readers, after: int | None, limit: int) -> DevicePage:
    """One page, by their ids."""
    parameters = {"after": -(2**63) if after is None else after, "wanted": limit}
    found = await readers.rows(_DEVICES, parameters, int)
    return DevicePage(found, found[-1] if len(found) == limit else None)
