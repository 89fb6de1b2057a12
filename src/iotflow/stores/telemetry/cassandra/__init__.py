"""The telemetry store for a fleet: Cassandra, or what speaks its protocol."""

from iotflow.stores.telemetry.cassandra.store import CassandraTelemetryStore

__all__ = ["CassandraTelemetryStore"]
