"""A bounded map whose entries die of age."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

import msgspec

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_SWEPT_PER_PUT = 2
_TOGETHER_S = 0.1


class Evicted(NamedTuple, Generic[K, V]):
    """An entry that had to go although it was still good until `expires_s`."""

    key: K
    value: V
    expires_s: float


class _Held(msgspec.Struct, Generic[V], frozen=True, gc=False):
    """A value and its end: half the size of a tuple, as the collector leaves it alone."""

    value: V
    expires_s: float


class ExpiringMap(Generic[K, V]):
    """At most `max_entries` that live `ttl_s` each, by a clock that the caller reads.

    Full, it gives up the one longest untouched. Each put also takes up to two dead ones off
    that end. Without `touch` that is the order of expiry, so the dead cannot pile up; a
    touched entry may lie dead for one more `ttl_s` at most before they get to it.

    What is put within a tenth of a second ends together, with the first of it; and one value put
    for many keys in that time is held once, so that it costs a key and a pointer for each.
    """

    def __init__(self, ttl_s: float, max_entries: int) -> None:
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._entries: OrderedDict[K, _Held[V]] = OrderedDict()
        self._expires_s = float("-inf")
        self._newest: _Held[V] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K, now_s: float) -> V | None:
        held = self._entries.get(key)
        if held is None:
            return None
        if held.expires_s <= now_s:
            del self._entries[key]
            return None
        return held.value

    def touch(self, key: K, now_s: float) -> V | None:
        """As `get`, and the entry counts as used; its life is no longer for that."""
        value = self.get(key, now_s)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V, now_s: float) -> Evicted[K, V] | None:
        """Set an entry and begin its life anew; returns the oldest where it had to give way."""
        entries = self._entries
        entries[key] = self._hold(value, now_s + self._ttl_s)
        entries.move_to_end(key)
        self._sweep(now_s)
        if len(entries) <= self._max_entries:
            return None
        oldest, evicted = entries.popitem(last=False)
        return Evicted(oldest, evicted.value, evicted.expires_s)

    def pop(self, key: K) -> None:
        self._entries.pop(key, None)

    def clear(self) -> None:
        self._entries.clear()
        self._newest = None

    def _hold(self, value: V, expires_s: float) -> _Held[V]:
        if not 0 <= expires_s - self._expires_s < _TOGETHER_S:
            self._expires_s = expires_s
            self._newest = None
        newest = self._newest
        if newest is None or newest.value is not value:
            newest = self._newest = _Held(value, self._expires_s)
        return newest

    def _sweep(self, now_s: float) -> None:
        entries = self._entries
        for _ in range(_SWEPT_PER_PUT):
            key = next(iter(entries), None)
            if key is None or entries[key].expires_s > now_s:
                return
            del entries[key]
