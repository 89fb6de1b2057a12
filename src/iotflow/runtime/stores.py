"""Picks the adapters that the settings' URLs name.

Nothing else imports an adapter, and an adapter's driver is imported only when its URL is used.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from iotflow.errors import ConfigurationError
from iotflow.observability.metrics import Metrics
from iotflow.observability.timing import timed
from iotflow.pipeline.cache_epoch import CacheEpoch
from iotflow.settings import PREFIX, SCHEMES, Role, Settings
from iotflow.stores.cache.protocol import CacheStore, Epoch, FixedEpoch
from iotflow.stores.cache.ttls import CacheTtls
from iotflow.stores.events.protocol import EventStore
from iotflow.stores.lifecycle import Store
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

    def by_role(self) -> dict[str, Store]:
        return {
            "registry": self.registry,
            "telemetry": self.telemetry,
            "cache": self.cache,
            "events": self.events,
        }


def is_embedded(url: str) -> bool:
    """Whether a store lives in this process and its files, so that no other may share it."""
    return url.startswith(("sqlite:", "memory:"))


def create_stores(settings: Settings) -> Stores:
    """The stores that the settings name, not yet opened.

    Raises:
        ConfigurationError: a URL that cannot work; it names the setting.
    """
    urls = {role: settings.store_url(role) for role in SCHEMES}
    with _naming("registry"):
        registry = _create_registry(urls["registry"])
    with _naming("telemetry"):
        telemetry = _create_telemetry(urls["telemetry"])
    with _naming("cache"):
        epoch = CacheEpoch(registry) if urls["cache"].startswith("redis") else FixedEpoch()
        cache = _create_cache(urls["cache"], settings, epoch)
    return Stores(registry, telemetry, cache, create_event_store(settings), epoch)


def create_event_store(settings: Settings) -> EventStore:
    """The event store alone, not yet opened. Raises ConfigurationError as `create_stores`."""
    with _naming("events"):
        return _create_events(settings.store_url("events"), settings.events.retention_s)


@contextmanager
def _naming(role: Role) -> Generator[None]:
    """What is wrong with a store's URL is said with the setting's name."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{PREFIX}{role.upper()}__URL: {error}") from error


def timed_stores(stores: Stores, metrics: Metrics) -> Stores:
    """The same, their calls timed."""
    return replace(
        stores,
        registry=timed(stores.registry, "registry", metrics),
        telemetry=timed(stores.telemetry, "telemetry", metrics),
        cache=timed(stores.cache, "cache", metrics),
        events=timed(stores.events, "events", metrics),
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
