"""A CSV file as a table: its encoding, its delimiter, its columns, its rows."""

import codecs
import csv
import io
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from iotflow.cli.client import os_reason
from iotflow.cli.importing.lines import MAX_LINE, BadRow, Row, csv_errors, read_rows
from iotflow.errors import ConfigurationError

_DELIMITERS = ",;\t|"
_WORDS = {"\\t": "\t", "tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
_SAMPLE_ROWS = 50


@dataclass(frozen=True, slots=True)
class Table:
    """What the first lines of a file say about it. `columns` are the header's names, stripped."""

    path: Path
    encoding: str
    delimiter: str
    columns: tuple[str, ...]
    header_line: int
    sample: tuple[Row, ...]

    @contextmanager
    def rows(self) -> Generator[tuple[Iterator[Row | BadRow], Callable[[], int]]]:
        """The rows after the header, and a function that tells how many bytes were read.

        Raises:
            ConfigurationError: the file cannot be opened.
        """
        with _opened(self.path, self.encoding) as file:
            for _ in range(self.header_line):
                file.readline(MAX_LINE)
            rows = read_rows(file, self.delimiter, len(self.columns))
            yield _renumbered(rows, self.header_line), file.buffer.tell


def inspect(path: Path, delimiter: str | None, encoding: str | None) -> Table:
    """Read the first lines.

    Raises:
        ConfigurationError: the file cannot be read or is not CSV with a header.
    """
    encoding = _encoding(path, encoding)
    with _opened(path, encoding) as file:
        header_line, header = _header(file)
    delimiter = _delimiter(header, delimiter)
    columns = _columns(header, delimiter)
    table = Table(path, encoding, delimiter, columns, header_line, ())
    with table.rows() as (rows, _):
        found = (row for row, _ in zip(rows, range(_SAMPLE_ROWS), strict=False))
        sample = tuple(row for row in found if isinstance(row, Row))
    return Table(path, encoding, delimiter, columns, header_line, sample)


@contextmanager
def _opened(path: Path, encoding: str) -> Generator[TextIO]:
    try:
        file = path.open(encoding=encoding, errors="surrogateescape", newline="")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({os_reason(error)}).") from None
    with file:
        try:
            yield file
        except UnicodeError:
            raise ConfigurationError(
                f"{path} is not text in {encoding}. Give --encoding, or save it as UTF-8."
            ) from None


def _encoding(path: Path, given: str | None) -> str:
    if given is not None:
        try:
            return codecs.lookup(given).name
        except LookupError:
            raise ConfigurationError(f"--encoding: there is no encoding '{given}'.") from None
    try:
        with path.open("rb") as file:
            begin = file.read(3)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({os_reason(error)}).") from None
    if begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig"


def _header(file: TextIO) -> tuple[int, str]:
    """The number of the first line that is not empty, and the line."""
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), ""), start=1):
        if "\x00" in line or len(line) >= MAX_LINE:
            break
        if line.strip():
            return number, line
    else:
        raise ConfigurationError(f"{file.name} is empty: there is no header line.")
    raise ConfigurationError(f"{file.name} is not a CSV file.")


def _delimiter(header: str, given: str | None) -> str:
    if given is not None:
        delimiter = _WORDS.get(given, given)
        if len(delimiter) != 1 or delimiter in '"\r\n':
            raise ConfigurationError("--delimiter: give one character, or tab.")
        return delimiter
    counts = {each: len(_cells(header, each)) for each in _DELIMITERS}
    best = max(counts, key=lambda each: counts[each])
    if counts[best] < 2:
        raise ConfigurationError(
            "The first line has one column only. A header names a time column and at least one "
            "more; give --delimiter if they are divided by something other than , ; | or tab."
        )
    return best


def _columns(header: str, delimiter: str) -> tuple[str, ...]:
    columns = tuple(cell.strip() for cell in _cells(header, delimiter))
    if len(columns) < 2:
        raise ConfigurationError("--delimiter: with it, the first line has one column only.")
    return columns


def _cells(header: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(header), delimiter=delimiter, strict=True))
    except (csv_errors, StopIteration):
        return []


def _renumbered(rows: Iterator[Row | BadRow], skipped: int) -> Iterator[Row | BadRow]:
    for row in rows:
        if isinstance(row, Row):
            yield Row(row.line + skipped, row.cells)
        else:
            yield BadRow(row.line + skipped, row.code, row.message)
