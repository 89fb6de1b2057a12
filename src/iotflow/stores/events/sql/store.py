"""The events role on SQLite and PostgreSQL, through SQLAlchemy Core."""

from collections.abc import Sequence

from sqlalchemy import text

from iotflow.domain.events import Event
from iotflow.stores.breaker import BreakerState
from iotflow.stores.events.protocol import EventQuery
from iotflow.stores.events.sql.layout import Layout, Owner
from iotflow.stores.events.sql.postgres import PostgresLayout
from iotflow.stores.events.sql.sqlite import SqliteLayout
from iotflow.stores.events.sql.tables import to_event, to_row
from iotflow.stores.sql import Database
from iotflow.stores.statistics import Statistic

_APPEND_ROWS = 1_000
_DELETE_ROWS = 5_000


class SqlEventStore:
    """Implements `EventStore` (protocol.py) for a `sqlite:///` or `postgresql://` URL.

    An event that no try could store (details that are no JSON, say) raises ValueError or TypeError,
    never StoreUnavailableError, and nothing of its batch is stored.
    """

    def __init__(self, url: str, *, pool_size: int = 4) -> None:
        # NORMAL survives a killed process. A power cut may take the last events, and those can be
        # made again from the telemetry; a disk's flush for every batch would slow down the points.
        self._database = Database("events", url, synchronous="NORMAL", pool_size=pool_size)
        self._layout: Layout = SqliteLayout() if self._database.is_sqlite else PostgresLayout()

    @property
    def backend(self) -> str:
        return self._database.backend

    @property
    def breaker_state(self) -> BreakerState:
        return self._database.breaker.state

    async def open(self) -> None:
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()

    async def statistics(self) -> list[Statistic]:
        return await self._database.statistics()

    async def ping(self) -> None:
        async with self._database.reading() as connection:
            await connection.execute(text("SELECT 1"))

    async def append(self, events: Sequence[Event]) -> int:
        # In one order everywhere, so that two writers of the same events cannot block each other.
        # Sorting is stable: of two with one id the first is kept.
        rows = sorted([to_row(event) for event in events], key=lambda row: row.id)
        new = 0
        async with self._database.writing() as connection:
            for begin in range(0, len(rows), _APPEND_ROWS):
                new += await self._layout.append(connection, rows[begin : begin + _APPEND_ROWS])
        return new

    async def query(self, query: EventQuery) -> tuple[list[Event], bool]:
        async with self._database.reading() as connection:
            rows = (await connection.execute(self._layout.page(query))).all()
        return [to_event(row) for row in rows[: query.limit]], len(rows) > query.limit

    async def delete_device(self, device_id: int) -> int:
        return await self._delete("device_id", device_id)

    async def delete_user(self, user_id: int) -> int:
        return await self._delete("user_id", user_id)

    async def _delete(self, owner: Owner, owner_id: int) -> int:
        """In transactions of bounded size, so that events are appended in between."""
        deleted, last = 0, _DELETE_ROWS
        while last == _DELETE_ROWS:
            async with self._database.writing() as connection:
                last = await self._layout.delete(connection, owner, owner_id, _DELETE_ROWS)
            deleted += last
        return deleted
