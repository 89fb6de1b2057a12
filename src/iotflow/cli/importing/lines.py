"""Rows of a CSV file, with their line numbers, in bounded memory and past any damage."""

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

MAX_LINE = 1_000_000  # characters
_MOST_LINES = 10_000  # that one row may span, in quotes
csv_errors = csv.Error


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of a row and the line where it begins; line 1 is the file's first."""

    line: int
    cells: list[str]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used, and why."""

    line: int
    code: str
    message: str


class _LineTooLongError(Exception):
    pass


class _Lines:
    """Physical lines, of which the last ones taken can be given back."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._again: deque[str] = deque()
        self._read = 0
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._file.readline(MAX_LINE)
        if not line:
            raise StopIteration
        self._read += 1
        self.taken.append(line)
        if len(line) >= MAX_LINE and not line.endswith("\n"):
            self._skip_rest()
            raise _LineTooLongError
        if len(self.taken) > _MOST_LINES:
            raise _LineTooLongError
        return line

    def begin(self) -> int:
        """Begin a row; returns the line's number."""
        self.taken.clear()
        return self._read + 1

    def give_back(self) -> bool:
        """Keep the first line of this row as taken, and let the others come again."""
        others = self.taken[1:]
        self._again.extendleft(reversed(others))
        self._read -= len(others)
        del self.taken[1:]
        return bool(others)

    def _skip_rest(self) -> None:
        while (part := self._file.readline(MAX_LINE)) and not part.endswith("\n"):
            pass


def read_rows(file: TextIO, delimiter: str, width: int | None = None) -> Iterator[Row | BadRow]:
    """The rows of a file opened with `newline=""`; empty lines are left out.

    With `width` a row of another number of cells is a BadRow. One with a stray quote, which
    would take in the lines after it, costs its own line alone: the others are read again.
    """
    lines = _Lines(file)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = lines.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (csv_errors, _LineTooLongError) as error:
            yield _damaged(line, error, spanned=lines.give_back())
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            continue
        if any(cells):
            yield from _checked(Row(line, cells), width, lines)


def _checked(row: Row, width: int | None, lines: _Lines) -> Iterator[Row | BadRow]:
    cells = row.cells
    if width is None or len(cells) == width:
        yield row
    elif len(cells) > width and not any(cells[width:]):
        yield Row(row.line, cells[:width])
    elif lines.give_back():
        yield BadRow(row.line, "unclosed_quote", "A quote is opened and not closed.")
    else:
        message = f"The row has {len(cells)} cells, the header {width}."
        yield BadRow(row.line, "wrong_cell_count", message)


def _damaged(line: int, error: Exception, *, spanned: bool) -> BadRow:
    if isinstance(error, _LineTooLongError) and not spanned:
        return BadRow(line, "line_too_long", f"A line has at most {MAX_LINE:,} characters.")
    if spanned or "unexpected end" in str(error):
        return BadRow(line, "unclosed_quote", "A quote is opened and not closed.")
    return BadRow(line, "unreadable_row", f"The row is not CSV: {error}.")
