"""What a cache adapter counts, for metrics."""

from dataclasses import dataclass


@dataclass(slots=True)
class CacheCounters:
    """Plain numbers that only rise. A hit on a latest entry is a complete one.

    `evictions` are entries that had to go before their time because a bound was reached.
    """

    key_hits: int = 0
    key_misses: int = 0
    latest_hits: int = 0
    latest_misses: int = 0
    evictions: int = 0
