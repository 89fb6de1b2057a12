"""Counting in windows of time: two-bucket sliding counters and exact logs."""

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import TypeVar

from iotflow.stores.cache.counters import CacheCounters
from iotflow.stores.cache.protocol import Hit, LogCount, WindowCount

T = TypeVar("T")

_SWEPT_PER_NEW = 2

# Windows come from the policies in the settings, so there are few of them.
_BySubject = dict[int, OrderedDict[str, T]]


class SlidingWindows:
    """Two-bucket counters, at most `max_subjects` for each length of window.

    Buckets begin at multiples of the window since the epoch, as those of all processes do.
    Full, it forgets the subject that was counted least recently.
    """

    def __init__(self, max_subjects: int, counters: CacheCounters) -> None:
        self._max_subjects = max_subjects
        self._totals = counters
        # [bucket, previous, current]: a list, because this runs for every request.
        self._counters: _BySubject[list[int]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._counters.values()))

    def count(self, hits: Sequence[Hit], now_s: float) -> list[WindowCount]:
        """Count at `now_s`, epoch seconds; answers in the order of the hits."""
        return [self._count(hit, now_s) for hit in hits]

    def forget(self, suffix: str) -> None:
        """Forget the subjects that end so."""
        _forget(self._counters, suffix)

    def clear(self) -> None:
        self._counters.clear()

    def _count(self, hit: Hit, now_s: float) -> WindowCount:
        window_s = hit.window_s
        bucket = int(now_s // window_s)
        counters = self._counters.get(window_s)
        if counters is None:
            counters = self._counters[window_s] = OrderedDict()
        counter = counters.get(hit.subject)
        if counter is None:
            counter = counters[hit.subject] = [bucket, 0, 0]
            self._make_room(counters, bucket)
        else:
            counters.move_to_end(hit.subject)
            if counter[0] != bucket:
                counter[1] = counter[2] if counter[0] == bucket - 1 else 0
                counter[2] = 0
                counter[0] = bucket
        counter[2] += hit.cost
        return WindowCount(counter[1], counter[2], now_s - bucket * window_s)

    def _make_room(self, counters: OrderedDict[str, list[int]], bucket: int) -> None:
        for _ in range(_SWEPT_PER_NEW):
            subject, oldest = next(iter(counters.items()))
            if oldest[0] >= bucket - 1:
                break
            del counters[subject]
        if len(counters) > self._max_subjects:
            counters.popitem(last=False)
            self._totals.evictions += 1


class SlidingLogs:
    """Exact logs of when something was counted, at most `max_subjects` for each window."""

    def __init__(self, max_subjects: int, counters: CacheCounters) -> None:
        self._max_subjects = max_subjects
        self._totals = counters
        self._logs: _BySubject[deque[float]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._logs.values()))

    def log(self, hit: Hit, limit: int, now_s: float) -> LogCount:
        """Count at `now_s` seconds as far as `limit` has room; a cost of 0 only looks."""
        logs = self._logs.setdefault(hit.window_s, OrderedDict())
        log = logs.get(hit.subject)
        if log is None:
            log = deque[float]()
        while log and log[0] <= now_s - hit.window_s:
            log.popleft()
        log.extend([now_s] * min(hit.cost, max(0, limit - len(log))))
        self._keep(logs, hit, log, now_s)
        return LogCount(len(log), max(0.0, log[0] + hit.window_s - now_s) if log else 0.0)

    def forget(self, suffix: str) -> None:
        """Forget the subjects that end so."""
        _forget(self._logs, suffix)

    def clear(self) -> None:
        self._logs.clear()

    def _keep(
        self, logs: OrderedDict[str, deque[float]], hit: Hit, log: deque[float], now_s: float
    ) -> None:
        if not log:
            logs.pop(hit.subject, None)
            return
        logs[hit.subject] = log
        logs.move_to_end(hit.subject)
        for _ in range(_SWEPT_PER_NEW):
            subject, oldest = next(iter(logs.items()))
            if oldest[-1] > now_s - hit.window_s:
                break
            del logs[subject]
        if len(logs) > self._max_subjects:
            logs.popitem(last=False)
            self._totals.evictions += 1


def _forget(by_subject: _BySubject[T], suffix: str) -> None:
    for entries in by_subject.values():
        for subject in [subject for subject in entries if subject.endswith(suffix)]:
            del entries[subject]
