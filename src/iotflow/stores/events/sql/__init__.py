"""The events role on SQLite and PostgreSQL."""

from iotflow.stores.events.sql.store import SqlEventStore

__all__ = ["SqlEventStore"]
