"""Hits and misses of the caches, as metrics."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric

from iotflow.devices.authentication import KeyAuthenticator
from iotflow.observability.metrics import labelled
from iotflow.stores.cache.counters import CacheCounters


def cache_metrics(counters: CacheCounters, keys: KeyAuthenticator) -> Iterator[Metric]:
    """`kind` is local_key (in process), key or latest (the cache role)."""
    lookups = CounterMetricFamily(
        "iotflow_cache_lookups", "Look-ups in caches", labels=["kind", "result"]
    )
    for kind, hits, misses in (
        ("local_key", keys.local_hits, keys.local_misses),
        ("key", counters.key_hits, counters.key_misses),
        ("latest", counters.latest_hits, counters.latest_misses),
    ):
        lookups.add_metric([kind, "hit"], hits)
        lookups.add_metric([kind, "miss"], misses)
    yield lookups
    evictions = [("evicted", float(counters.evictions))]
    yield labelled(
        CounterMetricFamily, "iotflow_cache_evictions", "Entries put out", "cause", evictions
    )
