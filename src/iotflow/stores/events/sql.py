"""The events role on SQLite and PostgreSQL, through SQLAlchemy Core."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, select, text, tuple_

from iotflow.domain.events import Event
from iotflow.stores.breaker import BreakerState
from iotflow.stores.events.protocol import EventQuery
from iotflow.stores.events.sql_append import append_parameters, append_statement
from iotflow.stores.events.sql_table import events
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
        self._append = append_statement(self._database.is_sqlite)

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
        ordered = sorted(events, key=lambda event: event.id)
        batches = [
            append_parameters(self._database.is_sqlite, ordered[begin : begin + _APPEND_ROWS])
            for begin in range(0, len(ordered), _APPEND_ROWS)
        ]
        new = 0
        async with self._database.writing() as connection:
            for parameters in batches:
                new += (await connection.execute(self._append, parameters)).rowcount
        return new

    async def query(self, query: EventQuery) -> tuple[list[Event], bool]:
        async with self._database.reading() as connection:
            rows = (await connection.execute(_page(query))).all()
        return [_to_event(row) for row in rows[: query.limit]], len(rows) > query.limit

    async def delete_device(self, device_id: int) -> int:
        return await self._delete(events.c.device_id == device_id)

    async def delete_user(self, user_id: int) -> int:
        return await self._delete(events.c.user_id == user_id)

    async def _delete(self, condition: ColumnElement[bool]) -> int:
        """In transactions of bounded size, so that events are appended in between."""
        chunk = select(events.c.id).where(condition).limit(_DELETE_ROWS)
        statement = delete(events).where(events.c.id.in_(chunk))
        deleted, last = 0, _DELETE_ROWS
        while last == _DELETE_ROWS:
            async with self._database.writing() as connection:
                last = (await connection.execute(statement)).rowcount
            deleted += last
        return deleted


def _page(query: EventQuery) -> Select[Any]:
    column = events.c
    end_ms = query.range.end_ms
    statement = select(events).order_by(column.timestamp_ms.desc(), column.id.desc())
    if query.user_id is not None:
        statement = statement.where(column.user_id == query.user_id)
    if query.device_id is not None:
        statement = statement.where(column.device_id == query.device_id)
    if query.event_type is not None:
        statement = statement.where(column.event_type == query.event_type)
    if query.after is not None:
        after = (query.after.timestamp_ms, query.after.id)
        end_ms = min(end_ms, query.after.timestamp_ms + 1)
        statement = statement.where(tuple_(column.timestamp_ms, column.id) < after)
    within = (column.timestamp_ms >= query.range.start_ms, column.timestamp_ms < end_ms)
    return statement.where(*within).limit(query.limit + 1)


def _to_event(row: Any) -> Event:
    return Event(
        id=row.id,
        event_type=row.event_type,
        timestamp_ms=row.timestamp_ms,
        user_id=row.user_id,
        device_id=row.device_id,
        details=json.loads(row.details),
    )
