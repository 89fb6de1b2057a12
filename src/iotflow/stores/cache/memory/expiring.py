"""A bounded map whose entries die of age."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_SWEPT_PER_PUT = 2


class Evicted(NamedTuple, Generic[K, V]):
    """An entry that had to go although it was still good until `expires_s`."""

    key: K
    value: V
    expires_s: float


class ExpiringMap(Generic[K, V]):
    """At most `max_entries` that live `ttl_s` each, by a clock that the caller reads.

    Full, it gives up the one longest untouched. Each put also takes up to two dead ones off
    that end. Without `touch` that is the order of expiry, so the dead cannot pile up; a
    touched entry may lie dead for one more `ttl_s` at most before they get to it.
    """

    def __init__(self, ttl_s: float, max_entries: int) -> None:
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._entries: OrderedDict[K, tuple[V, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K, now_s: float) -> V | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[1] <= now_s:
            del self._entries[key]
            return None
        return entry[0]

    def touch(self, key: K, now_s: float) -> V | None:
        """As `get`, and the entry counts as used; its life is no longer for that."""
        value = self.get(key, now_s)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V, now_s: float) -> Evicted[K, V] | None:
        """Set an entry and begin its life anew; returns the oldest where it had to give way."""
        entries = self._entries
        entries[key] = (value, now_s + self._ttl_s)
        entries.move_to_end(key)
        self._sweep(now_s)
        if len(entries) <= self._max_entries:
            return None
        oldest, (evicted, expires_s) = entries.popitem(last=False)
        return Evicted(oldest, evicted, expires_s)

    def pop(self, key: K) -> None:
        self._entries.pop(key, None)

    def clear(self) -> None:
        self._entries.clear()

    def _sweep(self, now_s: float) -> None:
        entries = self._entries
        for _ in range(_SWEPT_PER_PUT):
            key = next(iter(entries), None)
            if key is None or entries[key][1] > now_s:
                return
            del entries[key]
