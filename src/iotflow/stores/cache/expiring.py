"""A bounded map whose entries die of age."""

from collections.abc import Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

import msgspec

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
W = TypeVar("W")

_FREED_AT_ONCE = 4
_TOGETHER_S = 0.1


class Evicted(NamedTuple, Generic[V]):
    """What had to go although it was still good, the last of it until `expires_s`."""

    values: Sequence[V]
    expires_s: float


class _Held(msgspec.Struct, Generic[V], frozen=True, gc=False):
    """A value and its end: half the size of a tuple, as the collector leaves it alone."""

    value: V
    expires_s: float


class ExpiringMap(Generic[K, V]):
    """Keeps the `max_entries` that were put last or more, but never more than twice as many.

    Each lives `ttl_s`, by a clock that the caller reads. Entries are of two generations, plain
    dictionaries, which take half the room of one that knows who was used last. Once the young are
    `max_entries`, or `ttl_s` are over, they become the old ones, and the old ones before them go.
    So what is dead goes with the first put after one more `ttl_s`.

    What is put within a tenth of a second ends together, with the first of it; and one value put
    for many keys in that time is held once, so that it costs a key and a pointer for each.
    """

    def __init__(self, ttl_s: float, max_entries: int) -> None:
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._young: dict[K, _Held[V]] = {}
        self._old: dict[K, _Held[V]] = {}
        self._gone: dict[K, _Held[V]] = {}
        self._turns_s = float("-inf")
        self._expires_s = float("-inf")
        self._newest: _Held[V] | None = None

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: K, now_s: float) -> V | None:
        held = self._young.get(key) or self._old.get(key)
        if held is None or held.expires_s <= now_s:
            return None
        return held.value

    def put(self, key: K, value: V, now_s: float) -> Evicted[V] | None:
        """Set an entry and begin its life anew; returns what had to give way, if anything."""
        evicted = self._turn(now_s)
        if self._old.pop(key, None) is not None and not self._old:
            self._old = {}  # the table of one that was emptied is as large as ever
        self._young[key] = self._hold(value, now_s + self._ttl_s)
        if self._gone:
            self._gone = free_some(self._gone)
        return evicted

    def pop(self, key: K) -> None:
        self._young.pop(key, None)
        self._old.pop(key, None)

    def clear(self) -> None:
        for entries in (self._young, self._old, self._gone):
            entries.clear()
        self._newest = None

    def _hold(self, value: V, expires_s: float) -> _Held[V]:
        if not 0 <= expires_s - self._expires_s < _TOGETHER_S:
            self._expires_s = expires_s
            self._newest = None
        newest = self._newest
        if newest is None or newest.value is not value:
            newest = self._newest = _Held(value, self._expires_s)
        return newest

    def _turn(self, now_s: float) -> Evicted[V] | None:
        """Make the young ones old, if it is time to."""
        if now_s < self._turns_s and len(self._young) < self._max_entries:
            return None
        self._gone, self._old, self._young = self._old, self._young, {}
        is_in_time, self._turns_s = now_s >= self._turns_s, now_s + self._ttl_s
        if is_in_time:
            return None
        good = [held for held in self._gone.values() if held.expires_s > now_s]
        if not good:
            return None
        return Evicted([held.value for held in good], max(held.expires_s for held in good))


def free_some(gone: dict[K, W]) -> dict[K, W]:
    """Let go of a few entries of a dictionary that nobody needs, and return it: all of them at
    once would hold everybody up. The last of them take its table with them."""
    for _ in range(min(_FREED_AT_ONCE, len(gone))):
        gone.popitem()
    return gone or {}
