"""Picks the adapters that the settings' URLs name.

Nothing else imports an adapter, and an adapter's driver is imported only when its URL is used.
"""

from dataclasses import dataclass

from iotflow.pipeline.cache_epoch import CacheEpoch
from iotflow.settings import Settings
from iotflow.stores.cache.protocol import CacheStore, Epoch, FixedEpoch
from iotflow.stores.cache.ttls import CacheTtls
from iotflow.stores.events.protocol import EventStore
from iotflow.stores.registry.protocol import Registry
from iotflow.stores.telemetry.protocol import TelemetryStore


@dataclass(frozen=True, slots=True)
class Stores:
    """The adapters of a runtime, and the epoch that its cache is believed by."""

    registry: Registry
    telemetry: TelemetryStore
    cache: CacheStore
    events: EventStore
    epoch: Epoch


def is_embedded(url: str) -> bool:
    """Whether a store lives in this process and its files, so that no other may share it."""
    return url.startswith(("sqlite:", "memory:"))


def create_stores(settings: Settings) -> Stores:
    """The stores that the settings name, not yet opened."""
    registry = _create_registry(settings.store_url("registry"))
    cache_url = settings.store_url("cache")
    epoch = CacheEpoch(registry) if cache_url.startswith("redis") else FixedEpoch()
    return Stores(
        registry=registry,
        telemetry=_create_telemetry(settings.store_url("telemetry")),
        cache=_create_cache(cache_url, settings, epoch),
        events=_create_events(settings.store_url("events"), settings.events.retention_s),
        epoch=epoch,
    )


def _create_registry(url: str) -> Registry:
    from iotflow.stores.registry.sql import SqlRegistry

    return SqlRegistry(url)


def _create_telemetry(url: str) -> TelemetryStore:
    if url.startswith("cassandra:"):
        from iotflow.stores.telemetry.cassandra import CassandraTelemetryStore

        return CassandraTelemetryStore(url)
    if url.startswith("postgresql:"):
        from iotflow.stores.telemetry.postgres import PostgresTelemetryStore

        return PostgresTelemetryStore(url)
    from iotflow.stores.sql import sqlite_path
    from iotflow.stores.telemetry.sqlite import SqliteTelemetryStore

    return SqliteTelemetryStore(sqlite_path(url))


def _create_cache(url: str, settings: Settings, epoch: Epoch) -> CacheStore:
    ttls = CacheTtls(
        key_s=settings.cache_ttl.key_s,
        latest_s=settings.cache_ttl.latest_s,
        online_s=settings.cache_ttl.online_s,
    )
    if url.startswith("redis"):
        from iotflow.stores.cache.redis import RedisCache

        return RedisCache(url, ttls, epoch)
    if url.startswith("none:"):
        from iotflow.stores.cache.none import NoCache

        return NoCache(alone=is_embedded(settings.store_url("registry")))
    from iotflow.stores.cache.memory import MemoryCache

    return MemoryCache(ttls)


def _create_events(url: str, retention_s: int | None) -> EventStore:
    if url.startswith("mongodb"):
        from iotflow.stores.events.mongo import MongoEventStore

        return MongoEventStore(url, retention_s=retention_s)
    from iotflow.stores.events.sql import SqlEventStore

    return SqlEventStore(url)
