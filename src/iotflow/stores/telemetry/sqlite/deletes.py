"""Deleting a range of points, chunk by chunk, with the latest index kept true."""

from iotflow.domain.times import TimeRange
from iotflow.stores.telemetry.sqlite.driver import Connection
from iotflow.stores.telemetry.sqlite.upserts import write_latest

# About 20 ms of the writer's time.
_CHUNK_ROWS = 10_000
_FIRST_WINDOW_ROWS = 1_000

# Before and after every time that a point can have.
ALL_TIME = TimeRange(-(2**63), 2**63 - 1)
EVERY_WRITE_US = 2**63 - 1

_TIME_AFTER_ROWS = (
    "SELECT timestamp_ms FROM points WHERE device_id = ? AND timestamp_ms >= ?"
    " AND timestamp_ms < ? ORDER BY timestamp_ms LIMIT 1 OFFSET ?"
)
_TIME_BEFORE_ROWS = (
    "SELECT timestamp_ms FROM points WHERE device_id = ? AND timestamp_ms < ?"
    " ORDER BY timestamp_ms DESC LIMIT 1 OFFSET ?"
)
_DELETE_POINTS = (
    "DELETE FROM points WHERE device_id = ? AND timestamp_ms >= ? AND timestamp_ms < ?"
    " AND ingested_at < ?"
)
# Entries of the latest index whose points are gone.
_ORPHANS = (
    "FROM latest WHERE device_id = ? AND timestamp_ms >= ? AND timestamp_ms < ?"
    " AND NOT EXISTS (SELECT 1 FROM points WHERE points.device_id = latest.device_id"
    " AND points.timestamp_ms = latest.timestamp_ms"
    " AND points.measurement = latest.measurement)"
)
_NEWEST_IN_WINDOW = (
    "SELECT measurement, max(timestamp_ms) FROM points"
    " WHERE device_id = ? AND timestamp_ms >= ? AND timestamp_ms < ? GROUP BY measurement"
)


class RangeDelete:
    """Deletes a device's points in a range that were written before `written_us`.

    In chunks of bounded work, oldest first, each a transaction: in between others may write,
    and what they write carries a later mark, so it stays. A range as large as its device would
    hold up every writer for seconds otherwise.
    """

    def __init__(self, device_id: int, within: TimeRange, written_us: int) -> None:
        self.deleted = 0
        self.has_begun = False
        self._device_id = device_id
        self._start_ms = within.start_ms
        self._end_ms = within.end_ms
        self._written_us = written_us

    def take_chunk(self, connection: Connection) -> bool:
        """Delete the next chunk and commit; returns whether that was the last."""
        self.has_begun = True
        connection.execute("BEGIN IMMEDIATE")
        upto_ms = self._end_of_chunk(connection)
        chunk = (self._device_id, self._start_ms, upto_ms)
        connection.execute(_DELETE_POINTS, (*chunk, self._written_us))
        deleted = connection.changes()
        _repair_latest(connection, *chunk)
        connection.execute("COMMIT")
        self.deleted += deleted
        self._start_ms = upto_ms
        return upto_ms >= self._end_ms

    def _end_of_chunk(self, connection: Connection) -> int:
        found = connection.execute(
            _TIME_AFTER_ROWS, (self._device_id, self._start_ms, self._end_ms, _CHUNK_ROWS)
        ).fetchone()
        # The points of one time stay together, however many they are.
        return self._end_ms if found is None else max(found[0], self._start_ms + 1)


def _repair_latest(connection: Connection, device_id: int, start_ms: int, end_ms: int) -> None:
    """Point the entries of [start_ms, end_ms) that lost their point at the newest one left."""
    orphans = connection.execute(
        f"SELECT measurement, timestamp_ms {_ORPHANS}", (device_id, start_ms, end_ms)
    ).fetchall()
    if not orphans:
        return
    connection.execute(f"DELETE {_ORPHANS}", (device_id, start_ms, end_ms))
    below_ms = max(timestamp_ms for _, timestamp_ms in orphans)
    newest = _newest_below(connection, device_id, {name for name, _ in orphans}, below_ms)
    write_latest(connection, {(device_id, name): at_ms for name, at_ms in newest.items()})


def _newest_below(
    connection: Connection, device_id: int, names: set[str], below_ms: int
) -> dict[str, int]:
    """The newest times of measurements before `below_ms`; those without points are missing.

    The key is in order of time, so this looks back through windows that grow fourfold until
    all are found. What was measured lately costs little, however many points a device has; only
    a name without any point left costs one walk through the device's key.
    """
    found: dict[str, int] = {}
    rows = _FIRST_WINDOW_ROWS
    while len(found) < len(names):
        before = connection.execute(_TIME_BEFORE_ROWS, (device_id, below_ms, rows)).fetchone()
        from_ms = ALL_TIME.start_ms if before is None else before[0]
        for name, at_ms in connection.execute(_NEWEST_IN_WINDOW, (device_id, from_ms, below_ms)):
            if name in names:
                found.setdefault(name, at_ms)
        if before is None:
            break
        below_ms, rows = from_ms, rows * 4
    return found
