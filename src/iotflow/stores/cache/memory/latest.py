"""Latest values by device."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from iotflow.domain.points import LatestPoint, Submission
from iotflow.stores.cache.counters import CacheCounters
from iotflow.stores.cache.expiring import ExpiringMap
from iotflow.stores.cache.ttls import CacheTtls

_SWEPT_PER_FILL = 2


class _Entry:
    """What is known of a device since a fill began; `ordered` is what answers, once asked for."""

    __slots__ = ("complete", "ends_s", "expires_s", "generation", "ordered", "points")

    def __init__(self, generation: int, expires_s: float) -> None:
        self.points: dict[str, LatestPoint] = {}
        self.ordered: tuple[LatestPoint, ...] | None = None
        self.complete = False
        self.generation = generation
        self.expires_s = expires_s
        self.ends_s = expires_s

    def take(self, newer: LatestPoint) -> None:
        held = self.points.get(newer.measurement)
        if (
            held is None
            or newer.timestamp_ms > held.timestamp_ms
            or (newer.timestamp_ms == held.timestamp_ms and newer.written_us > held.written_us)
        ):
            self.points[newer.measurement] = newer
            self.ordered = None

    def answer(self) -> tuple[LatestPoint, ...]:
        if self.ordered is None:
            self.ordered = tuple(self.points[name] for name in sorted(self.points))
        return self.ordered


class LatestEntries:
    """Entries, least recently used first, and the guards that drops leave behind.

    An entry comes to be when a fill begins, and only then: it gathers what is recorded while
    the store is read. Its generation, from one counter that never repeats, is the fill's
    ticket. However an entry ends (drop, age, eviction), the ticket ends with it, so a fill
    never completes an entry that has missed a record since the fill began.

    `max_points` bounds the points of all entries together.
    """

    def __init__(
        self, ttls: CacheTtls, max_devices: int, max_points: int, counters: CacheCounters
    ) -> None:
        self._ttls = ttls
        self._max_devices = max_devices
        self._max_points = max_points
        self._counters = counters
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._points = 0
        self._generation = 0
        self._guards: ExpiringMap[int, int] = ExpiringMap(ttls.drop_guard_s, max_devices)
        # Stands in for guards that had to give way, and so for all devices.
        self._floor_us = 0
        self._floor_until_s = float("-inf")

    def sizes(self) -> dict[str, int]:
        return {
            "latest": len(self._entries),
            "latest_points": self._points,
            "drop_guards": len(self._guards),
        }

    def look(self, device_ids: Sequence[int], now_s: float) -> Mapping[int, Sequence[LatestPoint]]:
        found: dict[int, Sequence[LatestPoint]] = {}
        for device_id in device_ids:
            entry = self._live(device_id, now_s)
            if entry is not None and entry.complete:
                self._entries.move_to_end(device_id)
                found[device_id] = entry.answer()
        self._counters.latest_hits += len(found)
        self._counters.latest_misses += len(device_ids) - len(found)
        return found

    def begin_fill(self, device_ids: Iterable[int], now_s: float) -> dict[int, int]:
        return {device_id: self._ticket(device_id, now_s) for device_id in device_ids}

    def fill(
        self, device_id: int, points: Sequence[LatestPoint], generation: int, now_s: float
    ) -> bool:
        entry = self._live(device_id, now_s)
        if entry is None or entry.generation != generation:
            return False
        before = len(entry.points)
        for point in points:
            entry.take(point)
        entry.complete = True
        self._entries.move_to_end(device_id)
        entry.expires_s = now_s + self._ttls.latest_s
        entry.ends_s = now_s + max(self._ttls.latest_s, self._ttls.latest_max_s)
        self._grown(len(entry.points) - before)
        return True

    def record(self, submission: Submission, now_s: float) -> None:
        device_id = submission.device_id
        if self._is_guarded(device_id, submission.written_us, now_s):
            # Perhaps the store holds it (outside of the deleted range) and a fill that is under
            # way has not seen it. So it may not enter, and what lacks it may not stay.
            self.end(device_id)
            return
        entry = self._live(device_id, now_s)
        if entry is None:
            return
        before = len(entry.points)
        written_us = submission.written_us
        for point in submission.points:
            entry.take(
                LatestPoint(
                    point.timestamp_ms, point.measurement, point.value, point.unit, written_us
                )
            )
        if entry.complete:
            entry.expires_s = min(now_s + self._ttls.latest_s, entry.ends_s)
        self._entries.move_to_end(device_id)
        if len(entry.points) != before:
            self._grown(len(entry.points) - before)

    def drop(self, device_id: int, written_us: int, now_s: float) -> None:
        self.end(device_id)
        guard_us = max(written_us, self._guards.get(device_id, now_s) or 0)
        evicted = self._guards.put(device_id, guard_us, now_s)
        if evicted is not None:
            self._counters.evictions += len(evicted.values)
            self._floor_us = max(self._floor_us, *evicted.values)
            self._floor_until_s = max(self._floor_until_s, evicted.expires_s)

    def end(self, device_id: int) -> None:
        entry = self._entries.pop(device_id, None)
        if entry is not None:
            self._points -= len(entry.points)

    def clear(self) -> None:
        self._entries.clear()
        self._guards.clear()
        self._points = 0

    def _is_guarded(self, device_id: int, written_us: int, now_s: float) -> bool:
        if written_us < self._floor_us and now_s < self._floor_until_s:
            return True
        if not self._guards:
            return False
        guard_us = self._guards.get(device_id, now_s)
        return guard_us is not None and written_us < guard_us

    def _live(self, device_id: int, now_s: float) -> _Entry | None:
        entry = self._entries.get(device_id)
        if entry is not None and entry.expires_s <= now_s:
            self.end(device_id)
            return None
        return entry

    def _ticket(self, device_id: int, now_s: float) -> int:
        expires_s = now_s + self._ttls.latest_s
        entry = self._live(device_id, now_s)
        if entry is None:
            self._generation += 1
            entry = self._entries[device_id] = _Entry(self._generation, expires_s)
            self._make_room(now_s)
        elif not entry.complete:
            entry.expires_s = expires_s
            self._entries.move_to_end(device_id)
        return entry.generation

    def _make_room(self, now_s: float) -> None:
        """Sweep dead entries off the front, then evict down to the bound."""
        for _ in range(_SWEPT_PER_FILL):
            device_id, oldest = next(iter(self._entries.items()))
            if oldest.expires_s > now_s:
                break
            self.end(device_id)
        if len(self._entries) > self._max_devices:
            self._evict_oldest()

    def _grown(self, points: int) -> None:
        self._points += points
        while self._points > self._max_points:
            self._evict_oldest()

    def _evict_oldest(self) -> None:
        self.end(next(iter(self._entries)))
        self._counters.evictions += 1
