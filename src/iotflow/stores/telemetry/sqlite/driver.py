"""The telemetry file's driver: APSW, with an SQLite of its own (docs/decisions/0022).

While it is open nothing else in this process may open the file with another copy of SQLite, which
Python's own driver has: it would take itself for the last to close the file, and take the
write-ahead log away from under this one. (Other processes see each other's locks.)
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, cast

import apsw

from iotflow.errors import StoreUnavailableError

Parameters = Sequence[Any] | Mapping[str, Any]

_STATEMENTS = 256

BUSY = (apsw.BusyError, apsw.LockedError)
"""Somebody else holds the lock that was waited for."""

# What these say is the statement's fault or its parameters', not the file's.
_CALLERS_FAULT = (
    apsw.BindingsError,
    apsw.ConstraintError,
    apsw.MismatchError,
    apsw.MisuseError,
    apsw.RangeError,
    apsw.TooBigError,
)


class Rows(Protocol):
    """What a statement found: the first row at once, each further one when it is asked for."""

    def fetchall(self) -> list[tuple[Any, ...]]: ...
    def fetchone(self) -> tuple[Any, ...] | None: ...
    def __iter__(self) -> Iterator[tuple[Any, ...]]: ...
    def close(self) -> None: ...


class Connection(Protocol):
    """What is used of the driver's connections. (The types that it comes with need Python 3.12.)"""

    @property
    def in_transaction(self) -> bool: ...
    def execute(self, statement: str, parameters: Parameters = ..., /) -> Rows: ...
    def pragma(self, name: str, value: str | int = ..., /) -> Any: ...
    def changes(self) -> int: ...
    def config(self, option: int, value: int, /) -> int: ...
    def last_insert_rowid(self) -> int: ...
    def set_progress_handler(self, ends: Callable[[], bool], steps: int, /) -> None: ...
    def interrupt(self) -> None: ...
    def close(self) -> None: ...


def open_file(path: Path, **pragmas: str | int) -> Connection:
    """A connection. Threads may take turns with it, but never use it at the same time.

    Each statement is a transaction, unless one has been begun.
    """
    # Without SQLite's own mutex, which is taken for each column of each row.
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_NOMUTEX
    made: object = apsw.Connection(str(path), flags=flags, statementcachesize=_STATEMENTS)
    connection = cast("Connection", made)
    # Or a statement would be prepared again whenever a value is bound that could change its plan,
    # which is what SQLite believes of every LIMIT.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    for name, value in pragmas.items():
        connection.pragma(name, value)
    return connection


def roll_back(connection: Connection) -> None:
    """End the transaction that is under way, if there is one, without its changes."""
    with suppress(apsw.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def is_callers_fault(error: Exception) -> bool:
    """Whether what was to be written can never be written, to whatever disk."""
    return not isinstance(error, apsw.Error) or isinstance(error, _CALLERS_FAULT)


def translated(error: Exception) -> Exception:
    """What a caller is told: StoreUnavailableError where the file or its disk is at fault."""
    if is_callers_fault(error):
        return error
    unavailable = StoreUnavailableError("telemetry")
    unavailable.__cause__ = error
    return unavailable
