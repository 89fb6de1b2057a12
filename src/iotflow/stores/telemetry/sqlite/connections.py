"""Connections to the telemetry file, and what their errors mean."""

import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

from iotflow.errors import StoreUnavailableError

_BUSY_TIMEOUT_MS = 5_000
_WAL_SIZE_LIMIT_BYTES = 64 * 1024 * 1024
# Long before that it is copied beside the writer (checkpoints.py).
_WAL_LONGEST_PAGES = 8_000

# What these say is the statement's fault or its parameters', not the file's.
_CALLERS_FAULT = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.NotSupportedError,
    sqlite3.ProgrammingError,
)


class Connections(NamedTuple):
    """One that writes, one that copies what it wrote into the file, one that reads on the event
    loop, some that read in threads."""

    writer: sqlite3.Connection
    checkpointer: sqlite3.Connection
    inline: sqlite3.Connection
    readers: list[sqlite3.Connection]


def connect(path: Path, readers: int) -> Connections:
    """Open all connections or, with an error, none. Threads may take turns with each."""
    with ExitStack() as stack:
        writer = stack.enter_context(closing(_connect_writer(path)))
        checkpointer = stack.enter_context(closing(_connect(path)))
        inline = stack.enter_context(closing(_connect_reader(path, 0)))
        pool = [
            stack.enter_context(closing(_connect_reader(path, _BUSY_TIMEOUT_MS)))
            for _ in range(readers)
        ]
        stack.pop_all()
    return Connections(writer, checkpointer, inline, pool)


def _connect_writer(path: Path) -> sqlite3.Connection:
    return _connect(
        path,
        f"busy_timeout={_BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        f"journal_size_limit={_WAL_SIZE_LIMIT_BYTES}",
        f"wal_autocheckpoint={_WAL_LONGEST_PAGES}",
        "cache_size=-1000",
    )


def _connect_reader(path: Path, busy_timeout_ms: int) -> sqlite3.Connection:
    return _connect(path, f"busy_timeout={busy_timeout_ms}", "query_only=ON")


def _connect(path: Path, *pragmas: str) -> sqlite3.Connection:
    """Without transactions of the driver's: each statement is one, or its caller begins one."""
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")
    return connection


def is_callers_fault(error: Exception) -> bool:
    """Whether what was to be written can never be written, to whatever disk."""
    return not isinstance(error, sqlite3.Error) or isinstance(error, _CALLERS_FAULT)


def translated(error: Exception) -> Exception:
    """What a caller is told: StoreUnavailableError where the file or its disk is at fault."""
    if isinstance(error, sqlite3.DatabaseError) and not is_callers_fault(error):
        unavailable = StoreUnavailableError("telemetry")
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
