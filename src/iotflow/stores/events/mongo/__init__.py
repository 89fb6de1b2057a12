"""The events role on MongoDB."""

from iotflow.stores.events.mongo.store import MongoEventStore

__all__ = ["MongoEventStore"]
