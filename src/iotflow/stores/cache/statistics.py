"""Statistics of the caches inside this process."""

from collections.abc import Mapping

from iotflow.stores.statistics import Statistic, each


def entry_statistics(sizes: Mapping[str, int]) -> list[Statistic]:
    """How many entries of each kind there are."""
    counts = {kind: float(count) for kind, count in sizes.items()}
    return list(each("iotflow_cache_entries", "Entries in this process", "kind", counts))
