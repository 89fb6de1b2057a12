"""The telemetry role on PostgreSQL: points in tables, one statement for many submissions."""

from iotflow.stores.telemetry.postgres.store import PostgresTelemetryStore

__all__ = ["PostgresTelemetryStore"]
