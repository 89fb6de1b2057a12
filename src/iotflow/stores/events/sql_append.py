"""Appending many events with one statement.

The events go in as one parameter (SQLite: JSON) or one a column (PostgreSQL: arrays), so the
statement is the same for any number of them: it is compiled once, no limit on parameters
applies, and SQLite takes it in one step. The driver gives the interpreter's lock away at every
step and must wait for it again next to a busy event loop.
"""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ARRAY, BigInteger, FromClause, Text, bindparam, func, select, true
from sqlalchemy import column as sql_column

from iotflow.domain.events import Event
from iotflow.domain.points import INT64_MAX, INT64_MIN
from iotflow.stores.events.sql_table import events
from iotflow.stores.sql import inserting

_encode = json.JSONEncoder(allow_nan=False).encode
_COLUMNS = [column.name for column in events.columns]
_TYPES = [Text if isinstance(column.type, Text) else BigInteger for column in events.columns]


def append_statement(for_sqlite: bool) -> Any:
    """INSERT of the events that `append_parameters` gives; known ids change nothing."""
    insert = inserting(events, "sqlite" if for_sqlite else "postgresql")
    rows = _json_rows() if for_sqlite else _array_rows()
    # Without its WHERE, SQLite would read the ON of ON CONFLICT as a join's.
    chosen = select(*rows.columns).where(true())
    return insert.from_select(_COLUMNS, chosen).on_conflict_do_nothing()


def append_parameters(for_sqlite: bool, batch: Sequence[Event]) -> dict[str, Any]:
    """Raises ValueError or TypeError for an event that cannot be stored."""
    rows = [_row(event) for event in batch]
    if for_sqlite:
        return {"rows": msgspec.json.encode(rows).decode()}
    columns = zip(*rows, strict=True)
    return {name: list(values) for name, values in zip(_COLUMNS, columns, strict=True)}


def _row(event: Event) -> tuple[Any, ...]:
    # What a server would refuse, or cut and store, is found here, so that both are the same.
    if "\0" in event.id or "\0" in event.event_type:
        raise ValueError("an event's id and type are text without NUL")
    for number in (event.timestamp_ms, event.user_id or 0, event.device_id or 0):
        if not INT64_MIN <= number <= INT64_MAX:
            raise ValueError("an event's integers have 64 bits")
    return (
        event.id,
        event.event_type,
        event.timestamp_ms,
        event.user_id,
        event.device_id,
        _encode(event.details),
    )


def _json_rows() -> FromClause:
    rows = func.json_each(bindparam("rows", type_=Text)).table_valued("value", name="event_rows")
    columns = [
        func.json_extract(rows.c.value, f"$[{index}]").label(name)
        for index, name in enumerate(_COLUMNS)
    ]
    return select(*columns).subquery("event_rows")


def _array_rows() -> FromClause:
    columns = list(zip(_COLUMNS, _TYPES, strict=True))
    arrays = [bindparam(name, type_=ARRAY(kind)) for name, kind in columns]
    return (
        func.unnest(*arrays)
        .table_valued(*[sql_column(name, kind) for name, kind in columns])
        .render_derived(name="event_rows")
    )
