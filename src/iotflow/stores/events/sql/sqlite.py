"""Events in SQLite: a log in the order of arrival, whose indexes by owner follow in large steps.

An index by device is as good as random to the events of many devices: each would write a page of
its own, ten times the cost of the event (docs/decisions/0018). So the indexes of users and
devices are tables that take the log's newest rows thousands at a time, in their own order. What
they do not have yet, the tail, a query reads from the log itself.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, repeat
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    bindparam,
    column,
    delete,
    insert,
    literal_column,
    select,
    table,
    text,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from iotflow.domain.events import TELEMETRY_SUBMITTED
from iotflow.stores.events.protocol import EventQuery
from iotflow.stores.events.sql.layout import Owner, kind_in, newest_first, place_in
from iotflow.stores.events.sql.tables import EventRow, events
from iotflow.stores.statement_sizes import size_for

# What a query by owner may have to look through besides its index: some milliseconds.
_LONGEST_TAIL = 20_000

_COLUMNS = [each.name for each in events.columns]
_log = table("events", *map(column, [*_COLUMNS, "seq"]))
_indexed = table("events_indexed", column("through"))
_INDEX_NAMES: dict[Owner, str] = {"user_id": "events_by_user", "device_id": "events_by_device"}
_indexes = {
    owner: table(name, *map(column, (owner, "timestamp_ms", "id", "seq")))
    for owner, name in _INDEX_NAMES.items()
}
# With a plus, a column has no index: what is sought in the tail must not be sought in all the log,
# not even for the sake of the order.
_unindexed: dict[str, ColumnElement[Any]] = {
    name: literal_column(f"+events.{name}") for name in _COLUMNS
}
# Literally as in the indexes of these (alembic/versions/events), or they would not be taken.
_IS_RARE: ColumnElement[bool] = literal_column(f"event_type <> '{TELEMETRY_SUBMITTED}'")
_through = select(_indexed.c.through).scalar_subquery()

_TAIL = text("SELECT max(seq) - (SELECT through FROM events_indexed) FROM events")
# In the order of the index: its pages are written once for all the rows that fall on them.
_INDEX_TAIL = [
    insert(index).from_select(
        list(index.c),
        select(*[_log.c[each.name] for each in index.c])
        .where(_log.c.seq > _through, _log.c[owner].is_not(None))
        .order_by(_log.c[owner], _log.c.timestamp_ms, _log.c.id),
    )
    for owner, index in _indexes.items()
]
_TAIL_INDEXED = text(
    "UPDATE events_indexed SET through = max(through, (SELECT coalesce(max(seq), 0) FROM events))"
)
_DELETE = {
    owner: delete(_log).where(
        _log.c.seq.in_(
            select(index.c.seq)
            .where(index.c[owner] == bindparam("owner_id"))
            .limit(bindparam("at_most"))
        )
    )
    for owner, index in _indexes.items()
}


class SqliteLayout:
    """Implements `Layout`."""

    async def append(self, connection: AsyncConnection, rows: Sequence[EventRow]) -> int:
        # One step of one statement: the driver gives the interpreter's lock away at every step,
        # and has to wait for it again next to a busy event loop.
        size = size_for(len(rows))
        # Repeated, a row is in conflict with itself: nothing is done and nothing counted.
        filled = chain(rows, repeat(rows[-1], size - len(rows)))
        parameters = tuple(chain.from_iterable(filled))
        appended = await connection.exec_driver_sql(_append_sql(size), parameters)
        if ((await connection.execute(_TAIL)).scalar() or 0) > _LONGEST_TAIL:
            await _index_tail(connection)
        return appended.rowcount

    def page(self, query: EventQuery) -> Select[Any]:
        of_owner = _owner(query)
        of_kind = kind_in(query, _log.c)
        if query.event_type not in (None, TELEMETRY_SUBMITTED):
            of_kind.append(_IS_RARE)  # whose indexes are SQLite's own
            of_owner = None
        if of_owner is None:
            statement = _rows().where(*place_in(query, _log.c), *of_kind)
            return newest_first(statement, query, _log.c)
        owner, owner_id = of_owner
        index = _indexes[owner].c
        indexed = (
            _rows(timestamp_ms=index.timestamp_ms, id=index.id)
            .join_from(_indexes[owner], _log, _log.c.seq == index.seq)
            .where(index[owner] == owner_id, *place_in(query, index), *of_kind)
        )
        in_tail = _rows(**_unindexed).where(
            _log.c.seq > _through, *place_in(query, _unindexed), *kind_in(query, _unindexed)
        )
        pages = [
            select(newest_first(indexed, query, index).subquery()),
            select(newest_first(in_tail, query, _unindexed).subquery()),
        ]
        both = union_all(*pages).subquery()
        return newest_first(select(both), query, both.c)

    async def delete(
        self, connection: AsyncConnection, owner: Owner, owner_id: int, at_most: int
    ) -> int:
        # A trigger takes what is deleted out of the indexes.
        await _index_tail(connection)
        parameters = {"owner_id": owner_id, "at_most": at_most}
        return (await connection.execute(_DELETE[owner], parameters)).rowcount


@lru_cache
def _append_sql(rows: int) -> str:
    values = ",".join(["(?,?,?,?,?,?)"] * rows)
    columns = ",".join(_COLUMNS)
    return (
        f"INSERT INTO events ({columns}) VALUES {values}"  # noqa: S608 - names of columns, no value
        " ON CONFLICT (id) DO NOTHING"
    )


async def _index_tail(connection: AsyncConnection) -> None:
    for statement in (*_INDEX_TAIL, _TAIL_INDEXED):
        await connection.execute(statement)


def _owner(query: EventQuery) -> tuple[Owner, int] | None:
    """Whose index answers a query."""
    if query.device_id is not None:
        return "device_id", query.device_id
    return None if query.user_id is None else ("user_id", query.user_id)


def _rows(**given: Any) -> Select[Any]:
    """The columns of EventRow in the log, but for those that are given."""
    columns = {**_log.c, **given}
    return select(*[columns[name].label(name) for name in _COLUMNS]).select_from(_log)
