"""Writing many rows with few statements.

The driver gives the interpreter's lock away at every step of a statement and has to wait for it
again while the event loop is busy: up to the switch interval each time. Next to a busy thread 128
rows took 700 ms through `executemany`, 100 ms in statements of 2^n rows, and 25 ms as one
statement for all rows. So rows go out in one statement for every 1,024, with one of a few fixed
sizes, so that it is in the statement cache; the last row is repeated to fill it up. (More would
hold the lock for too long at once, while their parameters are bound.)
"""

from collections.abc import Iterable
from math import copysign
from typing import Any

from iotflow.domain.points import VALUE_TYPES, Point, Submission, ValueType
from iotflow.stores.statement_sizes import MOST_ROWS, size_for
from iotflow.stores.telemetry.sqlite.driver import Connection

_KINDS = {python_type: int(kind) for python_type, kind in VALUE_TYPES.items()}
_INTEGER, _TEXT = int(ValueType.INTEGER), int(ValueType.TEXT)

NEGATIVE_ZERO = 0
"""In `int_value` of a float: it is -0.0."""


class Upsert:
    """An INSERT that may take its rows twice without harm.

    A row has `columns` parameters of its own and `shared` ones that all rows of a statement have
    in common. `values` is what is inserted, with column1, column2 ... for a row's own parameters
    and ?1, ?2 ... for the shared ones. At most `most_rows` go in one statement.
    """

    def __init__(
        self,
        head: str,
        values: str,
        tail: str,
        *,
        columns: int,
        most_rows: int = MOST_ROWS,
    ) -> None:
        self._head = f"{head} SELECT {values} FROM (VALUES "  # noqa: S608
        # Without WHERE, ON CONFLICT would be read as the condition of a join.
        self._tail = f") WHERE true {tail}"
        self._row = f"({','.join('?' * columns)})"
        self._columns = columns
        self._most_rows = most_rows
        self._statements: dict[int, str] = {}

    def _statement(self, rows: int) -> str:
        """The statement for so many rows. As text it is short: a long one is not cached."""
        statement = self._statements.get(rows)
        if statement is None:
            statement = f"{self._head}{','.join([self._row] * rows)}{self._tail}"
            self._statements[rows] = statement
        return statement

    def run(
        self,
        connection: Connection,
        parameters: list[Any],
        shared: tuple[Any, ...] = (),
    ) -> None:
        """Write rows; `parameters` holds their columns, row after row. None is no row."""
        step = self._columns * self._most_rows
        for begin in range(0, len(parameters), step):
            chunk = parameters[begin : begin + step]
            rows = len(chunk) // self._columns
            size = size_for(rows)
            chunk += chunk[-self._columns :] * (size - rows)
            connection.execute(self._statement(size), (*shared, *chunk) if shared else chunk)


_INSERT = (
    "INSERT INTO points (device_id, timestamp_ms, measurement, value, user_id, ingested_at,"
    " value_type, unit, int_value, text_value)"
)
# The later write wins whole; one that comes again wins over itself, which changes nothing.
_REPLACE = (
    "ON CONFLICT (device_id, timestamp_ms, measurement) DO UPDATE SET"
    " value = excluded.value, value_type = excluded.value_type, unit = excluded.unit,"
    " int_value = excluded.int_value, text_value = excluded.text_value,"
    " user_id = excluded.user_id, ingested_at = excluded.ingested_at"
    " WHERE excluded.ingested_at > points.ingested_at"
)
# To bind a parameter costs more than to store it, and that with the interpreter's lock held. So
# plain floats, which nearly all points are, have statements that bind no more than they need.
_REST = "0, '', NULL, NULL"
_plain = Upsert(
    _INSERT, f"column1, column2, column3, column4, column5, column6, {_REST}", _REPLACE, columns=6
)
_plain_of_one = Upsert(
    _INSERT, f"?1, column1, column2, column3, ?2, ?3, {_REST}", _REPLACE, columns=3
)
_others = Upsert(_INSERT, "*", _REPLACE, columns=10, most_rows=MOST_ROWS // 2)
# Statements of a submission's own pay where it fills them: fewer statements are fewer waits.
_MANY_POINTS = 256
_latest = Upsert(
    "INSERT INTO latest (device_id, measurement, timestamp_ms)",
    "*",
    "ON CONFLICT (device_id, measurement) DO UPDATE SET timestamp_ms = excluded.timestamp_ms"
    " WHERE excluded.timestamp_ms > latest.timestamp_ms",
    columns=3,
)


def _zero_mark(zero: float) -> int | None:
    """What `int_value` says of a zero, since SQLite gives 0.0 back for -0.0 in a REAL column."""
    return NEGATIVE_ZERO if copysign(1.0, zero) < 0 else None


def write_submissions(connection: Connection, submissions: Iterable[Submission]) -> None:
    """Write points and what they mean for the latest index. The caller commits."""
    plain: list[Any] = []
    others: list[Any] = []
    newest: dict[tuple[int, str], int] = {}
    for submission in submissions:
        if len(submission.points) >= _MANY_POINTS:
            _write_many(connection, submission, others)
        else:
            _add(submission, plain, others)
        _note_newest(submission, newest)
    _plain.run(connection, plain)
    _others.run(connection, others)
    write_latest(connection, newest)


def write_latest(connection: Connection, newest: dict[tuple[int, str], int]) -> None:
    """Raise the latest index of (device, measurement) to these times where it is below."""
    _latest.run(
        connection,
        [
            column
            for (device_id, measurement), timestamp_ms in newest.items()
            for column in (device_id, measurement, timestamp_ms)
        ],
    )


def _write_many(connection: Connection, submission: Submission, others: list[Any]) -> None:
    """Write the plain points of a submission, and add what else it has to `others`."""
    rows: list[Any] = []
    for point in submission.points:
        value = point.value
        if type(value) is float and value and not point.unit:  # `_is_plain`, for every point
            rows += (point.timestamp_ms, point.measurement, value)
        else:
            _add_other(submission, point, others)
    shared = (submission.device_id, submission.user_id, submission.written_us)
    _plain_of_one.run(connection, rows, shared)


def _add(submission: Submission, plain: list[Any], others: list[Any]) -> None:
    device_id, user_id = submission.device_id, submission.user_id
    written_us = submission.written_us
    for point in submission.points:
        if _is_plain(point):
            at_ms, name, value = point.timestamp_ms, point.measurement, point.value
            plain += (device_id, at_ms, name, value, user_id, written_us)
        else:
            _add_other(submission, point, others)


def _is_plain(point: Point) -> bool:
    """A float without a unit. Zeros are none of them, for -0.0 needs its mark."""
    return type(point.value) is float and not point.unit and point.value != 0.0


def _add_other(submission: Submission, point: Point, others: list[Any]) -> None:
    value, kind = point.value, _KINDS[type(point.value)]
    others += (submission.device_id, point.timestamp_ms, point.measurement)
    # What sums and means are made of: of a boolean 0 or 1.
    number = 0.0 if kind == _TEXT else value if kind == _INTEGER else float(value)
    others += (number, submission.user_id, submission.written_us, kind, point.unit)
    if kind == _INTEGER:
        others += (value, None)
    elif kind == _TEXT:
        others += (None, value)
    else:
        others += (None if number else _zero_mark(float(value)), None)


def _note_newest(submission: Submission, newest: dict[tuple[int, str], int]) -> None:
    of_device: dict[str, int] = {}
    for point in submission.points:
        name, timestamp_ms = point.measurement, point.timestamp_ms
        if name not in of_device or timestamp_ms > of_device[name]:
            of_device[name] = timestamp_ms
    device_id = submission.device_id
    for name, timestamp_ms in of_device.items():
        key = (device_id, name)
        known_ms = newest.get(key)
        if known_ms is None or timestamp_ms > known_ms:
            newest[key] = timestamp_ms
