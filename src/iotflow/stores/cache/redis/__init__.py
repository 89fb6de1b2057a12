"""The cache role on Redis: a single server, behind Sentinel, or a Cluster."""

from iotflow.stores.cache.redis.adapter import RedisCache

__all__ = ["RedisCache"]
