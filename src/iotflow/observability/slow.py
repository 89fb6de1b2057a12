"""The log of slow store calls: which store, which operation, how long; never with what values."""

from collections import Counter
from collections.abc import Callable, Iterator
from time import monotonic

import structlog
from prometheus_client.core import CounterMetricFamily, Metric

_LINES = 10
_WINDOW_S = 10.0
_log = structlog.get_logger("iotflow.slow")


class SlowCalls:
    """Counts and logs calls that take `threshold_s` or longer, at most 10 lines in 10 seconds.

    What was left out in between is told with the next line: a store that is slow altogether
    is a number, not a flood.
    """

    def __init__(self, threshold_s: float, clock: Callable[[], float] = monotonic) -> None:
        self.threshold_s = threshold_s
        self._clock = clock
        self._counts: Counter[tuple[str, str]] = Counter()
        self._since_s = float("-inf")
        self._lines = 0
        self._left_out = 0

    def note(self, store: str, operation: str, duration_s: float) -> None:
        """A call that took as long as that."""
        self._counts[store, operation] += 1
        now_s = self._clock()
        if now_s - self._since_s >= _WINDOW_S:
            self._since_s, self._lines = now_s, 0
        if self._lines >= _LINES:
            self._left_out += 1
            return
        self._lines += 1
        left_out, self._left_out = self._left_out, 0
        _log.warning(
            "slow_store_call",
            store=store,
            operation=operation,
            ms=round(duration_s * 1000, 1),
            threshold_ms=round(self.threshold_s * 1000, 1),
            **({"left_out": left_out} if left_out else {}),
        )

    def metrics(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "iotflow_store_slow",
            "Store calls above the threshold",
            labels=["store", "operation"],
        )
        for (store, operation), count in self._counts.items():
            family.add_metric([store, operation], count)
        yield family
