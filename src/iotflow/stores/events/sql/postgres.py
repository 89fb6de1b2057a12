"""Events in PostgreSQL: a table with an index for each question.

The events of a batch go in as arrays, one a column, so the statement is the same for any number
of them: it is compiled once, and no limit on parameters applies.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    FromClause,
    Select,
    Text,
    bindparam,
    delete,
    func,
    select,
    true,
)
from sqlalchemy import column as sql_column
from sqlalchemy.ext.asyncio import AsyncConnection

from iotflow.stores.events.protocol import EventQuery
from iotflow.stores.events.sql.layout import Owner, kind_in, newest_first, place_in
from iotflow.stores.events.sql.tables import EventRow, events
from iotflow.stores.sql import inserting

_COLUMNS = [column.name for column in events.columns]
_TYPES = [Text if isinstance(column.type, Text) else BigInteger for column in events.columns]


class PostgresLayout:
    """Implements `Layout`."""

    def __init__(self) -> None:
        rows = _array_rows()
        chosen = select(*rows.columns).where(true())
        insert = inserting(events, "postgresql").from_select(_COLUMNS, chosen)
        self._append = insert.on_conflict_do_nothing()

    async def append(self, connection: AsyncConnection, rows: Sequence[EventRow]) -> int:
        columns = zip(*rows, strict=True)
        parameters = {name: list(values) for name, values in zip(_COLUMNS, columns, strict=True)}
        return (await connection.execute(self._append, parameters)).rowcount

    def page(self, query: EventQuery) -> Select[Any]:
        columns = events.c
        conditions = place_in(query, columns) + kind_in(query, columns)
        return newest_first(select(events).where(*conditions), query, columns)

    async def delete(
        self, connection: AsyncConnection, owner: Owner, owner_id: int, at_most: int
    ) -> int:
        chunk = select(events.c.id).where(events.c[owner] == owner_id).limit(at_most)
        statement = delete(events).where(events.c.id.in_(chunk))
        return (await connection.execute(statement)).rowcount


def _array_rows() -> FromClause:
    columns = list(zip(_COLUMNS, _TYPES, strict=True))
    arrays = [bindparam(name, type_=ARRAY(kind)) for name, kind in columns]
    return (
        func.unnest(*arrays)
        .table_valued(*[sql_column(name, kind) for name, kind in columns])
        .render_derived(name="event_rows")
    )
