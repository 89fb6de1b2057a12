"""What Redis tells of itself in INFO, server by server."""

from collections.abc import Iterable, Mapping

from iotflow.errors import StoreUnavailableError
from iotflow.stores.cache.redis.pipe import Pipe, PipeCounters
from iotflow.stores.cache.redis.wire import Reply
from iotflow.stores.statistics import Statistic

_MEMORY = {
    "used_memory": "used",
    "used_memory_rss": "resident",
    "maxmemory": "limit",
}
_COUNTERS = {
    "keyspace_hits": ("iotflow_redis_hits", "Look-ups that found a key"),
    "keyspace_misses": ("iotflow_redis_misses", "Look-ups that found none"),
    "evicted_keys": ("iotflow_redis_evictions", "Keys put out because the memory was full"),
    "expired_keys": ("iotflow_redis_expirations", "Keys whose time was over"),
    "rejected_connections": (
        "iotflow_redis_connections_rejected",
        "Connections refused because there were too many",
    ),
    "total_commands_processed": ("iotflow_redis_commands", "Commands carried out"),
}
_GAUGES = {
    "connected_clients": ("iotflow_redis_connections", "Connections of all clients"),
    "connected_slaves": ("iotflow_redis_replicas", "Replicas that follow a primary"),
    "mem_fragmentation_ratio": (
        "iotflow_redis_fragmentation_ratio",
        "Memory taken from the system over memory used",
    ),
}


async def server_statistics(pipes: Iterable[Pipe]) -> list[Statistic]:
    """Of every server that answers.

    Raises:
        StoreUnavailableError: none can be asked.
    """
    asked = [(pipe.name, pipe.send(("INFO",))) for pipe in pipes if pipe.is_connected]
    if not asked:
        raise StoreUnavailableError("cache")
    found: list[Statistic] = []
    for name, reply in asked:
        found += _of_server(name, await reply)
    return found


def _of_server(name: str, reply: Reply) -> list[Statistic]:
    """Nothing where INFO is not allowed, or the answer was lost."""
    if not isinstance(reply, bytes):
        return []
    told = read_info(reply.decode("utf-8", "replace"))
    server = (("server", name),)
    found = [
        Statistic(
            "iotflow_redis_memory_bytes",
            "Memory of a server; a limit of 0 is none",
            told[key],
            (*server, ("kind", kind)),
        )
        for key, kind in _MEMORY.items()
        if key in told
    ]
    for table, is_counter in ((_COUNTERS, True), (_GAUGES, False)):
        found += (
            Statistic(metric, help_text, told[key], server, is_counter)
            for key, (metric, help_text) in table.items()
            if key in told
        )
    return found


def read_info(text: str) -> Mapping[str, float]:
    """The numbers in an answer to INFO by their name."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            try:
                found[name] = float(value)
            except ValueError:
                continue
    return found


def pipe_statistics(counters: PipeCounters) -> list[Statistic]:
    """Of this process's connections."""
    values = {
        "commands": counters.commands,
        "batches": counters.batches,
        "timeouts": counters.timeouts,
        "reconnects": counters.reconnects,
        "overflows": counters.overflows,
    }
    return [
        Statistic(
            "iotflow_redis_client",
            "What happened on this process's connections",
            float(value),
            (("kind", kind),),
            True,
        )
        for kind, value in values.items()
    ]
