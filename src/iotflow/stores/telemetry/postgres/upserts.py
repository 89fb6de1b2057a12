"""Writing the points of many submissions with one statement.

One statement is one transaction and one round trip: when it returns, it is committed.

Whoever writes or deletes points of a measurement holds its row in `latest` first, taken in one
order (ON CONFLICT locks the row also where it does not raise it). So two replicas never wait
for each other in a circle, and a delete that lowers the index sees what was written meanwhile.
The count of `raised` makes the index go first: the server may choose any order otherwise.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from iotflow.domain.points import VALUE_TYPES, Point, Submission, ValueType
from iotflow.stores.telemetry.postgres.connections import Connection

_KINDS = {python_type: int(kind) for python_type, kind in VALUE_TYPES.items()}
_INTEGER, _TEXT = int(ValueType.INTEGER), int(ValueType.TEXT)

# The later write wins whole; one that comes again wins over itself, which changes nothing.
_WRITE = """
WITH raised AS (
    INSERT INTO telemetry.latest AS latest (device_id, measurement, timestamp_ms)
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[])
    ON CONFLICT (device_id, measurement) DO UPDATE SET timestamp_ms = excluded.timestamp_ms
    WHERE excluded.timestamp_ms > latest.timestamp_ms
    RETURNING 1
)
INSERT INTO telemetry.points AS points (device_id, timestamp_ms, measurement, value, value_type,
    unit, int_value, text_value, user_id, ingested_at)
SELECT * FROM unnest($4::bigint[], $5::bigint[], $6::text[], $7::double precision[],
    $8::smallint[], $9::text[], $10::bigint[], $11::text[], $12::bigint[], $13::bigint[])
WHERE (SELECT count(*) FROM raised) >= 0
ON CONFLICT (device_id, timestamp_ms, measurement) DO UPDATE SET
    value = excluded.value, value_type = excluded.value_type, unit = excluded.unit,
    int_value = excluded.int_value, text_value = excluded.text_value,
    user_id = excluded.user_id, ingested_at = excluded.ingested_at
WHERE excluded.ingested_at >= points.ingested_at
"""

_Key = tuple[int, int, str]
_Row = tuple[Point, Submission]


async def write_submissions(connection: Connection, submissions: Iterable[Submission]) -> None:
    """Write points and what they mean for the latest index; both are committed on return."""
    rows: dict[_Key, _Row] = {}
    newest: dict[tuple[int, str], int] = {}
    for submission in submissions:
        _add(submission, rows, newest)
    await connection.execute(_WRITE, *_latest_columns(newest), *_point_columns(rows))


def _add(
    submission: Submission, rows: dict[_Key, _Row], newest: dict[tuple[int, str], int]
) -> None:
    """A statement must not meet a point twice, so the later write wins here already."""
    device_id, written_us = submission.device_id, submission.written_us
    for point in submission.points:
        timestamp_ms, name = point.timestamp_ms, point.measurement
        key = (device_id, timestamp_ms, name)
        known = rows.get(key)
        if known is None or written_us >= known[1].written_us:
            rows[key] = (point, submission)
        known_ms = newest.get((device_id, name))
        if known_ms is None or timestamp_ms > known_ms:
            newest[device_id, name] = timestamp_ms


def _latest_columns(newest: dict[tuple[int, str], int]) -> Sequence[Sequence[Any]]:
    return list(zip(*((*key, newest[key]) for key in sorted(newest)), strict=True))


def _point_columns(rows: dict[_Key, _Row]) -> Sequence[Sequence[Any]]:
    return list(zip(*(_columns(key, *rows[key]) for key in sorted(rows)), strict=True))


def _columns(key: _Key, point: Point, submission: Submission) -> tuple[Any, ...]:
    value = point.value
    kind = _KINDS[type(value)]
    number = 0.0 if kind == _TEXT else float(value)
    return (
        *key,
        number,
        kind,
        point.unit,
        value if kind == _INTEGER else None,
        value if kind == _TEXT else None,
        submission.user_id,
        submission.written_us,
    )
