"""What is known of keys."""

from collections.abc import Collection

from iotflow.stores.cache.counters import CacheCounters
from iotflow.stores.cache.protocol import Epoch, KeyEntry
from iotflow.stores.cache.redis import codec, scripts
from iotflow.stores.cache.redis.calls import Call, Calls, run
from iotflow.stores.cache.ttls import CacheTtls


def milliseconds(seconds: float) -> int:
    """As Redis counts lives, of which none may be 0."""
    return max(1, round(seconds * 1000))


class Keys:
    """Records and unknown keys carry the epoch in which they were filled in; tombstones and holds
    count in all of them.
    """

    def __init__(
        self, calls: Calls, ttls: CacheTtls, epoch: Epoch, counters: CacheCounters
    ) -> None:
        self._calls = calls
        self._ttls = ttls
        self._epoch = epoch
        self._counters = counters

    async def look(self, digest: str) -> KeyEntry | None:
        call = Call(codec.key_key(digest), ("GET", codec.key_key(digest)))
        held = await self._calls.one(call, again=True)
        entry = codec.decode_key(held, self._epoch.current)
        if entry is None:
            self._counters.key_misses += 1
        else:
            self._counters.key_hits += 1
        return entry

    async def fill(self, digest: str, entry: KeyEntry) -> None:
        # Callers see to it that the look-up began in this epoch, too.
        epoch = self._epoch.current
        if epoch is None:
            return
        ttl_s = self._ttls.unknown_key_s if entry.record is None else self._ttls.key_s
        mark, rest = codec.entry_mark(epoch), codec.encode_key(entry)
        key = codec.key_key(digest)
        await self._calls.one(run(scripts.FILL_KEY, [key], mark, rest, milliseconds(ttl_s)))

    async def revoke(self, digests: Collection[str]) -> None:
        life_ms = milliseconds(self._ttls.tombstone_s)
        keys = [codec.key_key(digest) for digest in digests]
        await self._calls.all([Call(k, ("SET", k, "revoked", "PX", life_ms)) for k in keys])

    async def forget(self, digests: Collection[str]) -> None:
        life_ms = milliseconds(self._ttls.forget_s)
        keys = [codec.key_key(digest) for digest in digests]
        await self._calls.all([run(scripts.FORGET_KEY, [key], life_ms) for key in keys])
