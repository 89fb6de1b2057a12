"""Deleting a range of points, chunk by chunk, with the latest index kept true."""

import asyncio
from typing import Any

from iotflow.domain.times import TimeRange
from iotflow.errors import OverloadedError
from iotflow.stores.telemetry.postgres.connections import Connection, Connections

_CHUNK_ROWS = 10_000
_FIRST_WINDOW_ROWS = 1_000
_MAX_DELETES = 64

# Before and after every time that a point can have.
ALL_TIME = TimeRange(-(2**63), 2**63 - 1)
EVERY_WRITE_US = 2**63 - 1

# Whoever writes points of this device holds one of these, see upserts.py.
_LOCK = """
SELECT measurement FROM telemetry.latest WHERE device_id = $1 ORDER BY measurement FOR UPDATE
"""
_TIME_AFTER_ROWS = """
SELECT timestamp_ms FROM telemetry.points WHERE device_id = $1 AND timestamp_ms >= $2
AND timestamp_ms < $3 ORDER BY timestamp_ms LIMIT 1 OFFSET $4
"""
_TIME_BEFORE_ROWS = """
SELECT timestamp_ms FROM telemetry.points WHERE device_id = $1 AND timestamp_ms < $2
ORDER BY timestamp_ms DESC LIMIT 1 OFFSET $3
"""
_DELETE_POINTS = """
DELETE FROM telemetry.points WHERE device_id = $1 AND timestamp_ms >= $2 AND timestamp_ms < $3
AND ingested_at < $4 AND measurement = ANY($5::text[])
"""
# Entries of the latest index whose points are gone.
_DELETE_ORPHANS = """
DELETE FROM telemetry.latest AS latest
WHERE device_id = $1 AND timestamp_ms >= $2 AND timestamp_ms < $3
AND measurement = ANY($4::text[])
AND NOT EXISTS (SELECT 1 FROM telemetry.points AS points WHERE points.device_id = latest.device_id
    AND points.timestamp_ms = latest.timestamp_ms AND points.measurement = latest.measurement)
RETURNING measurement, timestamp_ms
"""
_NEWEST_IN_WINDOW = """
SELECT measurement, max(timestamp_ms) FROM telemetry.points
WHERE device_id = $1 AND timestamp_ms >= $2 AND timestamp_ms < $3 AND measurement = ANY($4::text[])
GROUP BY measurement
"""
_INSERT_LATEST = """
INSERT INTO telemetry.latest AS latest (device_id, measurement, timestamp_ms)
SELECT $1, * FROM unnest($2::text[], $3::bigint[])
ON CONFLICT (device_id, measurement) DO UPDATE SET timestamp_ms = excluded.timestamp_ms
WHERE excluded.timestamp_ms > latest.timestamp_ms
"""


class Deletes:
    """Deletes, one after another; at most 64 wait for their turn. Each chunk has `limit_s`."""

    def __init__(self, connections: Connections, limit_s: float) -> None:
        self._connections = connections
        self._limit_s = limit_s
        self._waiting = 0
        self._turn = asyncio.Lock()

    def admit(self) -> None:
        """Raises OverloadedError where too many wait; `run` must follow."""
        if self._waiting >= _MAX_DELETES:
            raise OverloadedError("deletion")
        self._waiting += 1

    async def run(self, device_id: int, within: TimeRange, written_us: int) -> int:
        """Delete a device's points in a range that were written before `written_us`.

        In chunks of bounded work, oldest first, each a transaction: in between others may
        write, and what they write carries a later mark, so it stays.
        """
        deleted, start_ms = 0, within.start_ms
        async with self._turn:
            while start_ms < within.end_ms:
                rest = TimeRange(start_ms, within.end_ms)
                async with (
                    self._connections.one(self._limit_s) as connection,
                    connection.transaction(),
                ):
                    start_ms, rows = await _delete_chunk(connection, device_id, rest, written_us)
                deleted += rows
        return deleted

    def done(self) -> None:
        """Ends what `admit` began."""
        self._waiting -= 1


async def _delete_chunk(
    connection: Connection, device_id: int, within: TimeRange, written_us: int
) -> tuple[int, int]:
    """Returns where the next chunk begins, and how many points were deleted."""
    # Names that come later are not held, so neither they nor their points are touched.
    names = [name for (name,) in await connection.fetch(_LOCK, device_id)]
    found = await connection.fetchval(
        _TIME_AFTER_ROWS, device_id, within.start_ms, within.end_ms, _CHUNK_ROWS
    )
    # The points of one time stay together, however many they are.
    upto_ms = within.end_ms if found is None else max(found, within.start_ms + 1)
    chunk = (device_id, within.start_ms, upto_ms)
    status = await connection.execute(_DELETE_POINTS, *chunk, written_us, names)
    await _repair_latest(connection, *chunk, names)
    return upto_ms, int(status.rpartition(" ")[2])


async def _repair_latest(
    connection: Connection, device_id: int, start_ms: int, end_ms: int, held: list[str]
) -> None:
    """Point the entries of [start_ms, end_ms) that lost their point at the newest one left."""
    orphans = await connection.fetch(_DELETE_ORPHANS, device_id, start_ms, end_ms, held)
    if not orphans:
        return
    below_ms = max(at_ms for _, at_ms in orphans)
    newest = await _newest_below(connection, device_id, {name for name, _ in orphans}, below_ms)
    names = sorted(newest)
    await connection.execute(_INSERT_LATEST, device_id, names, [newest[name] for name in names])


async def _newest_below(
    connection: Connection, device_id: int, names: set[str], below_ms: int
) -> dict[str, int]:
    """The newest times of measurements before `below_ms`; those without points are missing.

    The key is in order of time, so this looks back through windows that grow fourfold until
    all are found. What was measured lately costs little, however many points a device has; only
    a name without any point left costs one walk through the device's key.
    """
    found: dict[str, int] = {}
    rows = _FIRST_WINDOW_ROWS
    while missing := names - found.keys():
        before: Any = await connection.fetchval(_TIME_BEFORE_ROWS, device_id, below_ms, rows)
        from_ms = ALL_TIME.start_ms if before is None else before
        window = (device_id, from_ms, below_ms, list(missing))
        found |= dict(await connection.fetch(_NEWEST_IN_WINDOW, *window))
        if before is None:
            break
        below_ms, rows = from_ms, rows * 4
    return found
