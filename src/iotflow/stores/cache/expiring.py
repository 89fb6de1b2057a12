"""Bounded maps whose entries die of age."""

from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

import msgspec

from iotflow.stores.cache.pages import IN_PAGE, PAGE, PAGE_BITS

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


_Pages = dict[int, list[_Held[V] | None]]


class _Holder(Generic[V]):
    """What is put within a tenth of a second ends together, with the first of it; and one value
    put for many keys in that time is held once.
    """

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._expires_s = float("-inf")
        self._newest: _Held[V] | None = None

    def hold(self, value: V, now_s: float) -> _Held[V]:
        expires_s = now_s + self._ttl_s
        if not 0 <= expires_s - self._expires_s < _TOGETHER_S:
            self._expires_s = expires_s
            self._newest = None
        newest = self._newest
        if newest is None or newest.value is not value:
            newest = self._newest = _Held(value, self._expires_s)
        return newest

    def let_go(self) -> None:
        self._newest = None


class Generations(Generic[K, V]):
    """Keeps the `max_entries` that were put last or more, but never more than twice as many.

    Entries are of two generations, plain dictionaries, which take half the room of one that knows
    who was used last. Once the young are `max_entries`, or `ttl_s` are over, they become the old
    ones, and the old ones before them go. So what was put is gone with the first put after two
    times `ttl_s`, by a clock that the caller reads. No value is false.
    """

    def __init__(self, ttl_s: float, max_entries: int) -> None:
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}
        self._gone: dict[K, V] = {}
        self._turns_s = float("-inf")

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def find(self, key: K) -> V | None:
        return self._young.get(key) or self._old.get(key)

    def keep(self, key: K, value: V, now_s: float) -> tuple[V, ...]:
        """Set an entry; returns those that had to give way before their time."""
        gave_way = self._turn(now_s)
        if self._old.pop(key, None) is not None and not self._old:
            self._old = {}  # the table of one that was emptied is as large as ever
        self._young[key] = value
        if self._gone:
            self._gone = free_some(self._gone)
        return gave_way

    def pop(self, key: K) -> None:
        self._young.pop(key, None)
        self._old.pop(key, None)

    def clear(self) -> None:
        for entries in (self._young, self._old, self._gone):
            entries.clear()

    def _turn(self, now_s: float) -> tuple[V, ...]:
        """Make the young ones old, if it is time to."""
        if now_s < self._turns_s and len(self._young) < self._max_entries:
            return ()
        self._gone, self._old, self._young = self._old, self._young, {}
        is_in_time, self._turns_s = now_s >= self._turns_s, now_s + self._ttl_s
        return () if is_in_time else tuple(self._gone.values())


class ExpiringMap(Generations[K, _Held[V]]):
    """Generations whose entries live `ttl_s`."""

    def __init__(self, ttl_s: float, max_entries: int) -> None:
        super().__init__(ttl_s, max_entries)
        self._holder: _Holder[V] = _Holder(ttl_s)

    def get(self, key: K, now_s: float) -> V | None:
        # `find`, without the call: this runs for every submission.
        held = self._young.get(key) or self._old.get(key)
        if held is None or held.expires_s <= now_s:
            return None
        return held.value

    def put(self, key: K, value: V, now_s: float) -> Evicted[V] | None:
        """Set an entry and begin its life anew; returns what had to give way, if anything."""
        gave_way = self.keep(key, self._holder.hold(value, now_s), now_s)
        return _still_good(gave_way, now_s) if gave_way else None

    def clear(self) -> None:
        super().clear()
        self._holder.let_go()


class ExpiringIds(Generic[V]):
    """ExpiringMap for ids, in pages (see pages.py)."""

    def __init__(self, ttl_s: float, max_entries: int) -> None:
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._young: _Pages[V] = {}
        self._old: _Pages[V] = {}
        self._young_entries = 0
        self._old_entries = 0
        self._turns_s = float("-inf")
        self._holder: _Holder[V] = _Holder(ttl_s)

    def __len__(self) -> int:
        return self._young_entries + self._old_entries

    def get(self, key: int, now_s: float) -> V | None:
        number, place = key >> PAGE_BITS, key & IN_PAGE
        page = self._young.get(number)
        held = page[place] if page else None
        if held is None:
            page = self._old.get(number)
            held = page[place] if page else None
        if held is None or held.expires_s <= now_s:
            return None
        return held.value

    def put(self, key: int, value: V, now_s: float) -> Evicted[V] | None:
        """As `ExpiringMap.put`."""
        evicted = None
        if now_s >= self._turns_s or self._young_entries >= self._max_entries:
            evicted = self._turn(now_s)
        number, place = key >> PAGE_BITS, key & IN_PAGE
        page = self._young.get(number)
        if page is None:
            page = self._young[number] = [None] * PAGE
        if page[place] is None:
            self._young_entries += 1
            self._old_entries -= _take_from(self._old, number, place)
        page[place] = self._holder.hold(value, now_s)
        return evicted

    def pop(self, key: int) -> None:
        number, place = key >> PAGE_BITS, key & IN_PAGE
        self._young_entries -= _take_from(self._young, number, place)
        self._old_entries -= _take_from(self._old, number, place)

    def clear(self) -> None:
        self._young, self._old = {}, {}
        self._young_entries = self._old_entries = 0
        self._holder.let_go()

    def _turn(self, now_s: float) -> Evicted[V] | None:
        gone, self._old, self._young = self._old, self._young, {}
        self._old_entries, self._young_entries = self._young_entries, 0
        is_in_time, self._turns_s = now_s >= self._turns_s, now_s + self._ttl_s
        if is_in_time:
            return None
        return _still_good((held for page in gone.values() for held in page if held), now_s)


def _take_from(pages: _Pages[V], number: int, place: int) -> int:
    """Remove an entry; how many there were."""
    page = pages.get(number)
    if page is None or page[place] is None:
        return 0
    page[place] = None
    return 1


def _still_good(gone: Iterable[_Held[V]], now_s: float) -> Evicted[V] | None:
    good = [held for held in gone if held.expires_s > now_s]
    if not good:
        return None
    return Evicted([held.value for held in good], max(held.expires_s for held in good))


def free_some(gone: dict[K, W]) -> dict[K, W]:
    """Let go of a few entries of a dictionary that nobody needs, and return it: all of them at
    once would hold everybody up. The last of them take its table with them."""
    for _ in range(min(_FREED_AT_ONCE, len(gone))):
        gone.popitem()
    return gone or {}
