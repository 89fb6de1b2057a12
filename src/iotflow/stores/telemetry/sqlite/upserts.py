"""Writing many rows with few statements.

The sqlite3 module gives the interpreter's lock away at every step of a statement and has to
wait for it again while the event loop is busy: up to the switch interval each time. Next to a
busy thread 128 rows took 700 ms through `executemany`, 100 ms in statements of 2^n rows, and
25 ms as one statement for all rows. So rows go out in one statement for every 256, with one of
a few fixed sizes, so that it is in the statement cache; the last row is repeated to fill it up.
"""

import sqlite3
from bisect import bisect_left
from collections.abc import Iterable
from math import copysign

from iotflow.domain.points import VALUE_TYPES, Submission, ValueType

_KINDS = {python_type: int(kind) for python_type, kind in VALUE_TYPES.items()}
_INTEGER, _TEXT = int(ValueType.INTEGER), int(ValueType.TEXT)

NEGATIVE_ZERO = 0
"""In `int_value` of a float: it is -0.0."""

# Each at most half as large again as the one before: repetitions cost little.
_ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


class Upsert:
    """An INSERT that may take its rows twice without harm."""

    def __init__(self, head: str, columns: int, tail: str) -> None:
        self._columns = columns
        row = f"({','.join('?' * columns)})"
        self._statements = [f"{head} VALUES {','.join([row] * rows)} {tail}" for rows in _ROWS]

    def run(self, connection: sqlite3.Connection, parameters: list[object]) -> None:
        """Write rows; `parameters` holds their columns, row after row. None is no row."""
        step = self._columns * _ROWS[-1]
        for begin in range(0, len(parameters), step):
            chunk = parameters[begin : begin + step]
            rows = len(chunk) // self._columns
            size = bisect_left(_ROWS, rows)
            chunk += chunk[-self._columns :] * (_ROWS[size] - rows)
            connection.execute(self._statements[size], chunk)


# The later write wins whole; one that comes again wins over itself, which changes nothing.
_points = Upsert(
    "INSERT INTO points (device_id, timestamp_ms, measurement, value, value_type, unit,"
    " int_value, text_value, user_id, ingested_at)",
    10,
    "ON CONFLICT (device_id, timestamp_ms, measurement) DO UPDATE SET"
    " value = excluded.value, value_type = excluded.value_type, unit = excluded.unit,"
    " int_value = excluded.int_value, text_value = excluded.text_value,"
    " user_id = excluded.user_id, ingested_at = excluded.ingested_at"
    " WHERE excluded.ingested_at >= points.ingested_at",
)
_latest = Upsert(
    "INSERT INTO latest (device_id, measurement, timestamp_ms)",
    3,
    "ON CONFLICT (device_id, measurement) DO UPDATE SET timestamp_ms = excluded.timestamp_ms"
    " WHERE excluded.timestamp_ms > latest.timestamp_ms",
)


def _zero_mark(zero: float) -> int | None:
    """What `int_value` says of a zero, since SQLite gives 0.0 back for -0.0 in a REAL column."""
    return NEGATIVE_ZERO if copysign(1.0, zero) < 0 else None


def write_submissions(connection: sqlite3.Connection, submissions: Iterable[Submission]) -> None:
    """Write points and what they mean for the latest index. The caller commits."""
    rows: list[object] = []
    newest: dict[tuple[int, str], int] = {}
    for submission in submissions:
        _add(submission, rows, newest)
    _points.run(connection, rows)
    write_latest(connection, newest)


def write_latest(connection: sqlite3.Connection, newest: dict[tuple[int, str], int]) -> None:
    """Raise the latest index of (device, measurement) to these times where it is below."""
    _latest.run(
        connection,
        [
            column
            for (device_id, measurement), timestamp_ms in newest.items()
            for column in (device_id, measurement, timestamp_ms)
        ],
    )


def _add(submission: Submission, rows: list[object], newest: dict[tuple[int, str], int]) -> None:
    device_id, user_id = submission.device_id, submission.user_id
    written_us = submission.written_us
    for point in submission.points:
        value, timestamp_ms, name = point.value, point.timestamp_ms, point.measurement
        kind = _KINDS[type(value)]
        rows += (device_id, timestamp_ms, name)
        # Plain floats and integers alone: the driver tries to adapt any subclass, slowly.
        if kind == _TEXT:
            rows += (0.0, kind, point.unit, None, value)
        elif kind == _INTEGER:
            rows += (value, kind, point.unit, value, None)
        else:
            number = float(value)
            rows += (number, kind, point.unit, None if number else _zero_mark(number), None)
        rows += (user_id, written_us)
        known_ms = newest.get((device_id, name))
        if known_ms is None or timestamp_ms > known_ms:
            newest[device_id, name] = timestamp_ms
