"""Exact logs of what happened in a window of time."""

from collections import OrderedDict, deque

from iotflow.stores.cache.counters import CacheCounters
from iotflow.stores.cache.protocol import Hit, LogCount

_SWEPT_PER_NEW = 2


class SlidingLogs:
    """Exact logs of when something was counted, at most `max_subjects` for each window."""

    def __init__(self, max_subjects: int, counters: CacheCounters) -> None:
        self._max_subjects = max_subjects
        self._totals = counters
        # By length of window, then subject. Windows come from the settings, so there are few.
        self._logs: dict[int, OrderedDict[str, deque[float]]] = {}

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
        for logs in self._logs.values():
            for subject in [subject for subject in logs if subject.endswith(suffix)]:
                del logs[subject]

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
