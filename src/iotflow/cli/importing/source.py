"""A CSV file as batches, the same ones each time."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

from iotflow.cli.importing.batches import Batch, batches
from iotflow.cli.importing.cells import Cells
from iotflow.cli.importing.columns import Columns, LongColumns, WideColumns, find_columns
from iotflow.cli.importing.lines import BadRow, Row
from iotflow.cli.importing.local_times import LocalTimes, zone_named
from iotflow.cli.importing.options import ImportOptions
from iotflow.cli.importing.records import Item, Record, RecordReader, Rejected
from iotflow.cli.importing.table import Table, inspect
from iotflow.cli.importing.tally import Tally
from iotflow.cli.importing.times import parser_for
from iotflow.cli.terminal import count, quoted
from iotflow.errors import ConfigurationError

_MOST_BAD_NAMES = 100
_TIME_FAULTS = frozenset({"invalid_timestamp", "no_offset"})


class Source:
    """Knows how to read the file once it was looked at.

    Raises:
        ConfigurationError: the file or the options cannot work, said before anything is sent.
    """

    def __init__(self, options: ImportOptions) -> None:
        self._options = options
        self._parse = parser_for(options.time_format)
        self._zone = zone_named(options.timezone) if options.timezone else None
        self._cells = Cells(options.missing, options.decimal)
        self.table: Table = inspect(options.file, options.delimiter, options.encoding)
        self.columns: Columns = find_columns(self.table, options)
        self._check_sample()
        if isinstance(self.columns, LongColumns):
            self._check_names(self.columns)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Columns that cannot be imported, having no name."""
        return self.columns.left_out if isinstance(self.columns, WideColumns) else ()

    @contextmanager
    def reading(self) -> Generator["Reading"]:
        """Read the file from its beginning."""
        zone, options = self._zone, self._options
        local = LocalTimes(zone, options.missing_hour, options.repeated_hour) if zone else None
        reader = RecordReader(self.columns, self._parse, local, self._cells)
        with self.table.rows() as (rows, position):
            yield Reading(rows, reader, local, options.batch_size, position)

    def _check_sample(self) -> None:
        """Refuse a file of whose first rows no time can be read: all the others would fail too."""
        with self.reading() as reading:
            items = [item for row in self.table.sample for item in reading.items_of(row)]
        if not items or any(isinstance(item, Record) for item in items):
            return
        faults = [
            item for item in items if isinstance(item, Rejected) and item.code in _TIME_FAULTS
        ]
        if len(faults) == len(items):
            first = faults[0]
            where = f"Line {first.line}, time {quoted(first.time)}: "
            raise ConfigurationError(where + first.message)

    def _check_names(self, columns: LongColumns) -> None:
        """Refuse invalid names of a long file, which stand in its rows, before anything is sent."""
        bad: dict[str, None] = {}
        seen: set[str] = set()
        with self.table.rows() as (rows, _):
            for row in rows:
                if isinstance(row, Row) and len(bad) < _MOST_BAD_NAMES:
                    _note_name(row.cells[columns.name].strip(), seen, bad, columns)
        columns.naming.require_valid(bad)
        if len(seen) < _MOST_KNOWN_NAMES:
            columns.naming.require_known(seen)


_MOST_KNOWN_NAMES = 10_000


def _note_name(name: str, seen: set[str], bad: dict[str, None], columns: LongColumns) -> None:
    if name in seen or not name:
        return
    if len(seen) < _MOST_KNOWN_NAMES:
        seen.add(name)
    if not columns.naming.is_valid(name):
        bad[name] = None


class Reading:
    """One pass through the file."""

    def __init__(
        self,
        rows: Iterator[Row | BadRow],
        reader: RecordReader,
        local: LocalTimes | None,
        batch_size: int,
        position: Callable[[], int],
    ) -> None:
        self._rows = rows
        self._reader = reader
        self._local = local
        self._batch_size = batch_size
        self.position = position
        self.tally = Tally()
        self.rows_read = 0

    def batches(self) -> Iterator[Batch]:
        return batches(self._items(), self._batch_size)

    def items_of(self, row: Row | BadRow) -> Iterator[Item]:
        return self._reader.read(row)

    def _items(self) -> Iterator[Item]:
        for row in self._rows:
            self.rows_read += 1
            for item in self._reader.read(row):
                if isinstance(item, Record):
                    self.tally.add(item)
                yield item

    def clock_notes(self) -> list[str]:
        """What the rules for clock changes were used for."""
        notes: list[str] = []
        if self._local and self._local.shifted:
            notes.append(
                f"{count(self._local.shifted, 'local time')} that the clocks jumped over, "
                "shifted forward (--missing-hour)."
            )
        if self._local and self._local.repeated:
            notes.append(
                f"{count(self._local.repeated, 'local time')} of hours that occur twice, as the "
                "clocks were set back (--repeated-hour)."
            )
        return notes
