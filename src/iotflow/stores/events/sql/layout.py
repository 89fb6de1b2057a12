"""What the databases do in their own ways: how events lie in them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from sqlalchemy import ColumnCollection, ColumnElement, Select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from iotflow.stores.events.protocol import EventQuery
from iotflow.stores.events.sql.tables import EventRow

Owner = Literal["user_id", "device_id"]
Columns = ColumnCollection[str, Any] | Mapping[str, ColumnElement[Any]]
"""Columns by their names."""


class Layout(Protocol):
    """Statements and how to run them. Connections are in a transaction, which the caller ends."""

    async def append(self, connection: AsyncConnection, rows: Sequence[EventRow]) -> int:
        """Add rows; a known id changes nothing. Returns how many were new."""
        ...

    def page(self, query: EventQuery) -> Any:
        """A SELECT of the page's rows and one more, with the columns of EventRow."""
        ...

    async def delete(
        self, connection: AsyncConnection, owner: Owner, owner_id: int, at_most: int
    ) -> int:
        """Delete some of an owner's events; returns how many."""
        ...


def place_in(query: EventQuery, columns: Columns) -> list[ColumnElement[bool]]:
    """What the range of a query and its cursor ask of these columns."""
    timestamp_ms, id = columns["timestamp_ms"], columns["id"]
    end_ms, conditions = query.range.end_ms, list[ColumnElement[bool]]()
    if query.after is not None:
        after = (query.after.timestamp_ms, query.after.id)
        # The range of one column is what an index can use.
        end_ms = min(end_ms, query.after.timestamp_ms + 1)
        conditions.append(tuple_(timestamp_ms, id) < after)
    return [timestamp_ms >= query.range.start_ms, timestamp_ms < end_ms, *conditions]


def kind_in(query: EventQuery, columns: Columns) -> list[ColumnElement[bool]]:
    """What the filters of a query ask of these columns."""
    wanted = {name: getattr(query, name) for name in ("user_id", "device_id", "event_type")}
    return [columns[name] == value for name, value in wanted.items() if value is not None]


def newest_first(statement: Select[Any], query: EventQuery, columns: Columns) -> Select[Any]:
    """The page of a SELECT, in the order that the protocol promises."""
    order = (columns["timestamp_ms"].desc(), columns["id"].desc())
    return statement.order_by(*order).limit(query.limit + 1)
