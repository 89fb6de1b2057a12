"""Look-ups of keys in SQLite's file, at once on the event loop."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam
from sqlalchemy.dialects import sqlite

from iotflow.domain.devices import KeyRecord
from iotflow.errors import StoreUnavailableError
from iotflow.stores.registry.models import api_keys
from iotflow.stores.registry.sql_keys import records, to_record

# Readers wait for nobody but who recovers the file after a crash; the loop waits with them.
_PRAGMAS = "PRAGMA busy_timeout=100; PRAGMA query_only=ON; PRAGMA cache_size=-512"


class SqliteKeys:
    """Finds records of keys without a thread.

    A look-up walks down three trees whose pages are in memory, some 20 us. The two changes of
    thread that it takes through the driver of all other statements cost many times that, and a
    fleet that wakes up asks for all its keys in one go.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sql = str(
            records()
            .where(api_keys.c.digest == bindparam("digest"))
            .compile(dialect=sqlite.dialect())
        )
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open the file, which exists and has its tables.

        Raises:
            StoreUnavailableError: it cannot be read.
        """
        try:
            self._connection = sqlite3.connect(self._path, isolation_level=None)
            self._connection.executescript(_PRAGMAS)
        except sqlite3.Error as error:
            raise StoreUnavailableError("registry") from error

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def get(self, digest: str) -> KeyRecord | None:
        """The record of a key that is not revoked.

        Raises:
            StoreUnavailableError: the file cannot be read.
        """
        if self._connection is None:
            raise StoreUnavailableError("registry")
        try:
            # All of them, or the statement would hold its view of the file open.
            rows = self._connection.execute(self._sql, (digest,)).fetchall()
        except sqlite3.Error as error:
            raise StoreUnavailableError("registry") from error
        return _record(*rows[0]) if rows else None


def _record(
    _digest: str, key_id: int, prefix: str, created_at: str, expires_at: str | None, *others: Any
) -> KeyRecord:
    ends = None if expires_at is None else _utc(expires_at)
    return to_record(key_id, prefix, _utc(created_at), ends, *others)


def _utc(stored: str) -> datetime:
    # Times are stored as text, without a zone, as SQLAlchemy writes them (models.UtcDateTime).
    return datetime.fromisoformat(stored).replace(tzinfo=UTC)
