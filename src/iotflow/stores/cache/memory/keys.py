"""What is known of keys."""

from collections.abc import Collection

import msgspec
from msgspec.structs import astuple

from iotflow.domain.devices import DeviceStatus, KeyRecord
from iotflow.stores.cache.counters import CacheCounters
from iotflow.stores.cache.expiring import Evicted, ExpiringMap, Generations
from iotflow.stores.cache.protocol import KeyEntry
from iotflow.stores.cache.ttls import CacheTtls

OPENS_NOTHING = KeyEntry(None)
_HALF = (1 << 128) - 1

# When a record ends, in tenths of a second, and its fields: packed a third of the size of their
# objects, and there is one for every device.
_pack_into = msgspec.msgpack.Encoder().encode_into
_unpack = msgspec.msgpack.Decoder(
    tuple[int, tuple[int, str, int, int, str, DeviceStatus, bool, int, int | None]]
).decode


class KeyEntries:
    """Records, unknown keys, tombstones and holds, each with a bound of its own.

    They are kept apart so that a storm of unknown keys pushes out no good record, and neither
    pushes out a tombstone. A hold stands where a record was forgotten: it keeps off the fills
    that were under way, which would bring the old record back for its whole life.
    """

    def __init__(self, ttls: CacheTtls, max_keys: int, counters: CacheCounters) -> None:
        self._counters = counters
        self._key_s = ttls.key_s
        self._records: Generations[int, bytes] = Generations(ttls.key_s, max_keys)
        self._unknown: ExpiringMap[int, KeyEntry] = ExpiringMap(ttls.unknown_key_s, max_keys)
        self._tombstones: ExpiringMap[int, KeyEntry] = ExpiringMap(ttls.tombstone_s, max_keys)
        self._holds: ExpiringMap[int, bool] = ExpiringMap(ttls.forget_s, max_keys)
        self._no_fills_until_s = float("-inf")

    def sizes(self) -> dict[str, int]:
        return {
            "keys": len(self._records),
            "unknown_keys": len(self._unknown),
            "tombstones": len(self._tombstones),
            "holds": len(self._holds),
        }

    def look(self, digest: str, now_s: float) -> KeyEntry | None:
        entry = self.glance(digest, now_s)
        if entry is None:
            self._counters.key_misses += 1
        return entry

    def glance(self, digest: str, now_s: float) -> KeyEntry | None:
        """`look`, for who will ask again where there is nothing: no miss is counted."""
        number = _number(digest)
        entry = self._record(number, now_s)
        if entry is None:
            entry = self._tombstones.get(number, now_s) or self._unknown.get(number, now_s)
        if entry is not None:
            self._counters.key_hits += 1
        return entry

    def _record(self, number: int, now_s: float) -> KeyEntry | None:
        packed = self._records.find(number)
        if packed is None:
            return None
        ends, record = _unpack(packed)
        return KeyEntry(KeyRecord(*record)) if ends > now_s * 10 else None

    def fill(self, digest: str, entry: KeyEntry, now_s: float) -> None:
        number = _number(digest)
        if now_s < self._no_fills_until_s or self._is_taken(number, now_s):
            return
        if entry.record is None:
            self._count(self._unknown.put(number, OPENS_NOTHING, now_s))
        else:
            packed = _packed(entry.record, now_s + self._key_s)
            # Some may have been dead: to unpack them all would hold everybody up.
            self._counters.evictions += len(self._records.keep(number, packed, now_s))

    def revoke(self, digests: Collection[str], now_s: float) -> None:
        for number in [_number(digest) for digest in digests]:
            self._end(number)
            self._refuse_fills_after(self._tombstones.put(number, OPENS_NOTHING, now_s))

    def forget(self, digests: Collection[str], now_s: float) -> None:
        for number in [_number(digest) for digest in digests]:
            self._end(number)
            self._refuse_fills_after(self._holds.put(number, True, now_s))

    def clear(self) -> None:
        for entries in (self._records, self._unknown, self._tombstones, self._holds):
            entries.clear()

    def _is_taken(self, number: int, now_s: float) -> bool:
        return (
            self._record(number, now_s) is not None
            or self._unknown.get(number, now_s) is not None
            or self._tombstones.get(number, now_s) is not None
            or self._holds.get(number, now_s) is not None
        )

    def _end(self, number: int) -> None:
        self._records.pop(number)
        self._unknown.pop(number)

    def _refuse_fills_after(self, evicted: Evicted[KeyEntry] | Evicted[bool] | None) -> None:
        # With more revocations at once than fit, what one of them kept off is kept off by
        # taking no fills at all until it would have expired.
        self._count(evicted)
        if evicted is not None:
            self._no_fills_until_s = max(self._no_fills_until_s, evicted.expires_s)

    def _count(self, evicted: Evicted[KeyEntry] | Evicted[bool] | None) -> None:
        if evicted is not None:
            self._counters.evictions += len(evicted.values)


def _packed(record: KeyRecord, expires_s: float) -> bytes:
    # What the encoder gives out itself may take a larger block than it needs.
    packed = bytearray()
    _pack_into((round(expires_s * 10), astuple(record)), packed)
    return bytes(packed)


def _number(digest: str) -> int:
    """What stands for a digest: half of it as a number, two fifths of the size of its text. No two
    keys share 128 bits of theirs, nor can one be found that does."""
    return int(digest, 16) & _HALF
