"""The event log's table, the same on SQLite and PostgreSQL (alembic/versions/events)."""

from sqlalchemy import BigInteger, Column, MetaData, Table, Text

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
