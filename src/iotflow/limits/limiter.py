"""Rate limits by named policy.

Each process knows the count that the cache last told, plus what it let in since; from that it
refuses without asking. So a limit costs no round trip of its own on the ingest path (the
count rides along with the write to the cache), and goes on, per process, without a cache.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from prometheus_client.core import CounterMetricFamily, Metric

from iotflow.domain.limits import RatePolicy
from iotflow.errors import RateLimitedError, StoreUnavailableError
from iotflow.limits.window import SlidingWindow
from iotflow.observability.metrics import labelled
from iotflow.settings import RateLimitSettings
from iotflow.stores.cache.protocol import CacheStore, Hit, WindowCount

PolicyName = Literal["register", "login", "ingest", "points", "read", "write"]
_CAPACITY = 200_000


class RateLimiter:
    """`now` is the wall clock in epoch seconds, as the buckets of all processes are."""

    def __init__(
        self, cache: CacheStore, settings: RateLimitSettings, now: Callable[[], float]
    ) -> None:
        self.enabled = settings.enabled
        self._cache = cache
        self._now = now
        self._failures = settings.login_failures
        self._policies: dict[PolicyName, RatePolicy] = {
            "register": settings.register_,
            "login": settings.login,
            "ingest": settings.ingest,
            "points": settings.points,
            "read": settings.read,
            "write": settings.write,
        }
        self._windows: OrderedDict[str, SlidingWindow] = OrderedDict()
        self.refused: dict[str, int] = {}

    async def check(self, policy: PolicyName, subject: str, cost: int = 1) -> None:
        """Count `cost` for a subject.

        Raises:
            RateLimitedError: the policy's limit is reached.
        """
        if not self.enabled:
            return
        hits = self.admit(subject, ((policy, cost),))
        try:
            counts = await self._cache.count(hits)
        except StoreUnavailableError:
            return
        self.settle(hits, counts)

    def admit(self, subject: str, costs: Sequence[tuple[PolicyName, int]]) -> list[Hit]:
        """Count in process, without waiting; returns what the cache is still to be told.

        Raises:
            RateLimitedError: a limit is reached. Then nothing was counted.
        """
        if not self.enabled:
            return []
        now_s = self._now()
        counted: list[tuple[SlidingWindow, int]] = []
        hits: list[Hit] = []
        for policy, cost in costs:
            key = f"{policy}:{subject}"
            window = self._fitting_window(key, policy, cost, now_s)
            counted.append((window, cost))
            hits.append(Hit(key, window.window_s, cost))
        for window, cost in counted:
            window.current += cost
        return hits

    def _fitting_window(
        self, key: str, policy: PolicyName, cost: int, now_s: float
    ) -> SlidingWindow:
        rate = self._policies[policy]
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = SlidingWindow(rate.window_s)
            if len(self._windows) > _CAPACITY:
                self._windows.popitem(last=False)
        elapsed_s = window.turn(now_s)
        if window.used(elapsed_s) + cost > rate.limit:
            self.refused[policy] = self.refused.get(policy, 0) + 1
            retry_after_s = window.retry_after_s(rate.limit, cost, elapsed_s)
            raise RateLimitedError(policy, rate.limit, rate.window_s, retry_after_s)
        return window

    def settle(self, hits: Sequence[Hit], counts: Sequence[WindowCount]) -> None:
        """Learn what all processes together have counted."""
        for hit, count in zip(hits, counts, strict=False):
            window = self._windows.get(hit.subject)
            if window is not None:
                window.current = max(window.current, count.current)
                window.previous = max(window.previous, count.previous)

    async def check_failures(self, account: str) -> None:
        """Refuse another sign-in attempt where too many have failed.

        Raises:
            RateLimitedError: until the oldest failure is old enough.
        """
        await self._log_failures(account, cost=0)

    async def note_failure(self, account: str) -> None:
        """Count a failed sign-in."""
        await self._log_failures(account, cost=1)

    async def _log_failures(self, account: str, cost: int) -> None:
        if not self.enabled:
            return
        rate = self._failures
        hit = Hit(f"login_failures:{account}", rate.window_s, cost)
        try:
            log = await self._cache.log(hit, rate.limit)
        except StoreUnavailableError:
            return
        if cost == 0 and log.count >= rate.limit:
            self.refused["login_failures"] = self.refused.get("login_failures", 0) + 1
            retry_after_s = max(1, math.ceil(log.oldest_leaves_in_s))
            raise RateLimitedError("login_failures", rate.limit, rate.window_s, retry_after_s)

    def metrics(self) -> Iterator[Metric]:
        refused = [(policy, float(count)) for policy, count in self.refused.items()]
        yield labelled(
            CounterMetricFamily, "iotflow_rate_limited", "Requests refused", "policy", refused
        )
