"""Connections to the telemetry file."""

from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import apsw

from iotflow.stores.telemetry.sqlite.driver import Connection, open_file

_BUSY_TIMEOUT_MS = 5_000
_WAL_SIZE_LIMIT_BYTES = 64 * 1024 * 1024
# Long before that it is copied beside the writer (checkpoints.py).
_WAL_LONGEST_PAGES = 8_000


class Connections(NamedTuple):
    """One that writes, one that copies what it wrote into the file, one that reads on the event
    loop, some that read in threads."""

    writer: Connection
    checkpointer: Connection
    inline: Connection
    readers: list[Connection]


def connect(path: Path, readers: int) -> Connections:
    """Open all connections or, with an error, none. Threads may take turns with each."""
    with ExitStack() as stack:
        writer = stack.enter_context(closing(_connect_writer(path)))
        checkpointer = stack.enter_context(closing(open_file(path)))
        inline = stack.enter_context(closing(_connect_reader(path, 0)))
        pool = [
            stack.enter_context(closing(_connect_reader(path, _BUSY_TIMEOUT_MS)))
            for _ in range(readers)
        ]
        stack.pop_all()
    return Connections(writer, checkpointer, inline, pool)


def revision_of(path: Path) -> str | None:
    """The revision that the file's schema has, or None where there is no file, or no schema."""
    if not path.exists():
        return None
    with closing(open_file(path, busy_timeout=_BUSY_TIMEOUT_MS)) as connection:
        try:
            found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except apsw.SQLError:
            return None
    return None if found is None else str(found[0])


def _connect_writer(path: Path) -> Connection:
    return open_file(
        path,
        busy_timeout=_BUSY_TIMEOUT_MS,
        journal_mode="WAL",
        synchronous="FULL",
        journal_size_limit=_WAL_SIZE_LIMIT_BYTES,
        wal_autocheckpoint=_WAL_LONGEST_PAGES,
        cache_size=-1000,
    )


def _connect_reader(path: Path, busy_timeout_ms: int) -> Connection:
    return open_file(path, busy_timeout=busy_timeout_ms, query_only="ON")
