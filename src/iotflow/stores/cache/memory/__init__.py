"""The cache role inside the process: the embedded default."""

from iotflow.stores.cache.memory.adapter import MemoryCache

__all__ = ["MemoryCache"]
