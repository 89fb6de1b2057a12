"""The event log's table (alembic/versions/events), and how an event becomes a row of it."""

import json
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Column, MetaData, Table, Text

from iotflow.domain.events import Event
from iotflow.domain.points import INT64_MAX, INT64_MIN
from iotflow.domain.strict_json import strict_json

# `details` is JSON kept as text: it is given back as it came, and text of JSON can hold what
# PostgreSQL's JSON refuses in values (the character NUL, halves of surrogate pairs).
events = Table(
    "events",
    MetaData(),
    Column("id", Text, primary_key=True),
    Column("event_type", Text, nullable=False),
    Column("timestamp_ms", BigInteger, nullable=False),
    Column("user_id", BigInteger),
    Column("device_id", BigInteger),
    Column("details", Text, nullable=False),
)


class EventRow(NamedTuple):
    """The columns of `events`, in their order."""

    id: str
    event_type: str
    timestamp_ms: int
    user_id: int | None
    device_id: int | None
    details: str


def to_row(event: Event) -> EventRow:
    """Raises ValueError or TypeError for an event that cannot be stored."""
    # What a server would refuse, or cut and store, is found here, so that both are the same.
    if "\0" in event.id or "\0" in event.event_type:
        raise ValueError("an event's id and type are text without NUL")
    for number in (event.timestamp_ms, event.user_id or 0, event.device_id or 0):
        if not INT64_MIN <= number <= INT64_MAX:
            raise ValueError("an event's integers have 64 bits")
    return EventRow(
        event.id,
        event.event_type,
        event.timestamp_ms,
        event.user_id,
        event.device_id,
        strict_json(event.details),
    )


def to_event(row: Any) -> Event:
    """The event of a row that has the columns of EventRow."""
    return Event(
        id=row.id,
        event_type=row.event_type,
        timestamp_ms=row.timestamp_ms,
        user_id=row.user_id,
        device_id=row.device_id,
        details=json.loads(row.details),
    )
