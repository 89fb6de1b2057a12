"""From rows to records as the batch call takes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec

from iotflow.cli.importing.cells import Cells
from iotflow.cli.importing.columns import Columns, LongColumns, WideColumns
from iotflow.cli.importing.lines import BadRow, Row
from iotflow.cli.importing.local_times import LocalTimes, MissingLocalTimeError
from iotflow.cli.importing.times import TimeParser, UnknownTimeError, check_range
from iotflow.domain.points import Value
from iotflow.domain.times import MIN_INTEGER_MS, format_ms
from iotflow.telemetry import verdicts
from iotflow.telemetry.decoding import MAX_MEASUREMENTS
from iotflow.telemetry.verdicts import Rejection

_encode = msgspec.json.Encoder().encode
NO_OFFSET = "This time has no offset from UTC. Give --timezone, such as Europe/Berlin or UTC."


@dataclass(frozen=True, slots=True)
class Rejected:
    """A measurement of a row, or with `measurement` None the whole row, that is not stored."""

    line: int
    time: str
    measurement: str | None
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Record:
    """Measurements of one row and moment, encoded, and where they come from."""

    line: int
    time: str
    timestamp_ms: int
    values: dict[str, Value]
    body: bytes


Item = Record | Rejected


class RecordReader:
    """Reads rows in the order of the file: local times are resolved by what came before."""

    def __init__(
        self, columns: Columns, parse: TimeParser, local_times: LocalTimes | None, cells: Cells
    ) -> None:
        self._columns = columns
        self._parse = parse
        self._local_times = local_times
        self._cells = cells

    def read(self, row: Row | BadRow) -> Iterator[Item]:
        """The records of a row, and what of it is rejected."""
        if isinstance(row, BadRow):
            yield Rejected(row.line, "", None, row.code, row.message)
        elif isinstance(self._columns, WideColumns):
            yield from self._wide(row, self._columns)
        else:
            yield from self._long(row, self._columns)

    def _wide(self, row: Row, columns: WideColumns) -> Iterator[Item]:
        measured = [(each, cell) for each in columns.series
                    if not self._cells.is_missing(cell := row.cells[each.index])]  # fmt: skip
        time = _time_text(row, columns.times)
        timestamp_ms = self._timestamp(row, time, "")
        if isinstance(timestamp_ms, Rejected):
            yield timestamp_ms
            return
        values: dict[str, tuple[Value, str]] = {}
        for each, cell in measured:
            value = self._cells.value(each.name, cell)
            if isinstance(value, Rejection):
                yield _rejected(row.line, time, value)
            else:
                values[each.name] = value, each.unit
        rest = iter(values.items())
        while some := dict(islice(rest, MAX_MEASUREMENTS)):
            yield _record(row.line, time, timestamp_ms, some)

    def _long(self, row: Row, columns: LongColumns) -> Iterator[Item]:
        old = row.cells[columns.name].strip()
        new = columns.naming.new_name(old)
        cell = row.cells[columns.value]
        if (old and not new) or self._cells.is_missing(cell):
            return
        time = _time_text(row, columns.times)
        name = verdicts.canonical_name(new)
        if name is None:
            yield _rejected(row.line, time, verdicts.reject_name(new))
            return
        timestamp_ms = self._timestamp(row, time, name)
        if isinstance(timestamp_ms, Rejected):
            yield timestamp_ms
            return
        unit = "" if columns.unit is None else row.cells[columns.unit].strip()
        unit = unit or columns.naming.unit_of(old, new)
        value = self._cells.value(name, cell)
        if isinstance(value, Rejection):
            yield _rejected(row.line, time, value)
        elif unit and not verdicts.valid_unit(unit):
            yield _rejected(row.line, time, verdicts.reject_unit(name))
        else:
            yield _record(row.line, time, timestamp_ms, {name: (value, unit)})

    def _timestamp(self, row: Row, text: str, series: str) -> int | Rejected:
        try:
            parsed = self._parse(text)
            if isinstance(parsed, int):
                return check_range(parsed)
            if self._local_times is None:
                return Rejected(row.line, text, None, "no_offset", NO_OFFSET)
            return self._local_times.resolve_ms(parsed, series)
        except MissingLocalTimeError as error:
            return Rejected(row.line, text, None, "missing_local_time", str(error))
        except UnknownTimeError as error:
            message = str(error) if text else "The row has no time."
            return Rejected(row.line, text, None, "invalid_timestamp", message)


def _time_text(row: Row, indices: Sequence[int]) -> str:
    if len(indices) == 1:
        return row.cells[indices[0]].strip()
    return " ".join(row.cells[i].strip() for i in indices)


def _record(
    line: int, time: str, timestamp_ms: int, values: dict[str, tuple[Value, str]]
) -> Record:
    data: dict[str, Any] = {
        name: {"value": value, "unit": unit} if unit else value
        for name, (value, unit) in values.items()
    }
    sent = timestamp_ms if timestamp_ms >= MIN_INTEGER_MS else format_ms(timestamp_ms)
    body = _encode({"timestamp": sent, "data": data})
    bare = {name: value for name, (value, _) in values.items()}
    return Record(line, time, timestamp_ms, bare, body)


def _rejected(line: int, time: str, rejection: Rejection) -> Rejected:
    return Rejected(line, time, rejection.measurement, rejection.code, rejection.message)
