"""The embedded telemetry store: one SQLite file, one writer."""

from iotflow.stores.telemetry.sqlite.store import SqliteTelemetryStore

__all__ = ["SqliteTelemetryStore"]
