"""SQLite files through Python's own driver, and what its errors mean: for what cannot afford the
changes of thread of the asynchronous one."""

import sqlite3
from pathlib import Path

from iotflow.errors import StoreUnavailableError

# What these say is the statement's fault or its parameters', not the file's.
_CALLERS_FAULT = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.NotSupportedError,
    sqlite3.ProgrammingError,
)


def open_file(path: Path, *pragmas: str) -> sqlite3.Connection:
    """A connection without transactions of the driver's: each statement is one, or its caller
    begins one. Threads may take turns with it."""
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")
    return connection


def is_callers_fault(error: Exception) -> bool:
    """Whether what was to be written can never be written, to whatever disk."""
    return not isinstance(error, sqlite3.Error) or isinstance(error, _CALLERS_FAULT)


def translated(error: Exception, role: str) -> Exception:
    """What a caller is told: StoreUnavailableError where the file or its disk is at fault."""
    if isinstance(error, sqlite3.DatabaseError) and not is_callers_fault(error):
        unavailable = StoreUnavailableError(role)
        unavailable.__cause__ = error
        return unavailable
    return error


def is_busy(error: Exception) -> bool:
    """Whether somebody else holds the lock that was waited for."""
    return _primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_interrupted(error: Exception) -> bool:
    """Whether a progress handler ended the statement."""
    return _primary_code(error) == sqlite3.SQLITE_INTERRUPT


def _primary_code(error: Exception) -> int | None:
    if not isinstance(error, sqlite3.Error):
        return None
    code = getattr(error, "sqlite_errorcode", None)  # missing where the driver itself complains
    return None if code is None else code & 0xFF
