"""Hits and misses of a server's caches, read from its /metrics."""

from collections.abc import Iterable, Mapping

import httpx
from prometheus_client.parser import text_string_to_metric_families

from iotflow.cli.bench.fleet import reporting
from iotflow.cli.bench.servers import Server

Lookups = Mapping[str, tuple[float, float]]
"""Hits and misses by kind: `local_key` (in the process), `key` and `latest` (the cache role)."""

_FAMILY = "iotflow_cache_lookups"


def parse(text: str) -> Lookups:
    """From what /metrics says; empty where it says nothing of caches."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        if family.name == _FAMILY:
            for it in family.samples:
                found.setdefault(it.labels["kind"], {})[it.labels["result"]] = it.value
    return {kind: (of.get("hit", 0.0), of.get("miss", 0.0)) for kind, of in found.items()}


def between(before: Lookups, after: Lookups) -> Lookups:
    """What was asked in between."""
    none = (0.0, 0.0)
    return {
        kind: (hits - before.get(kind, none)[0], misses - before.get(kind, none)[1])
        for kind, (hits, misses) in after.items()
    }


def hit_rates(each: Iterable[Lookups]) -> dict[str, float]:
    """The share of hits by kind over several measurements, of the kinds that were asked at all."""
    sums: dict[str, tuple[float, float]] = {}
    for lookups in each:
        for kind, (hits, misses) in lookups.items():
            so_far = sums.get(kind, (0.0, 0.0))
            sums[kind] = (so_far[0] + hits, so_far[1] + misses)
    return {kind: hits / (hits + misses) for kind, (hits, misses) in sums.items() if hits + misses}


def lookups_of(server: Server) -> Lookups:
    """What the server counts now; nothing for a server that is not IoTFlow.

    Raises:
        BenchError: it does not say.
    """
    if not server.has_metrics:
        return {}
    with reporting(server):
        answer = httpx.get(f"{server.base_url}/metrics", timeout=10)
        return parse(answer.raise_for_status().text)
