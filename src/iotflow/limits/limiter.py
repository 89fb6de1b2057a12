"""Rate limits by named policy.

Each process knows the count that the cache last told, plus what it let in since; from that it
refuses without asking. So a limit costs no round trip of its own on the ingest path (the
count rides along with the write to the cache), and goes on, per process, without a cache or
with one that shares no counts.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from iotflow.domain.limits import RatePolicy
from iotflow.errors import RateLimitedError, StoreUnavailableError
from iotflow.limits.standing import NamedPolicy, current_standings
from iotflow.limits.throttle import Throttle, ThrottledError
from iotflow.limits.window import SlidingWindow, SlidingWindows
from iotflow.observability.metrics import labelled
from iotflow.settings import RateLimitSettings
from iotflow.stores.cache.protocol import CacheStore, Hit, WindowCount

PolicyName = Literal["register", "login", "ingest", "points", "read", "write"]
_CAPACITY = 200_000
_THROTTLE_CAPACITY = 10_000


class RateLimiter:
    """`now` is the wall clock in epoch seconds, as the buckets of all processes are."""

    def __init__(
        self, cache: CacheStore, settings: RateLimitSettings, now: Callable[[], float]
    ) -> None:
        self.enabled = settings.enabled
        self._cache = cache
        self._now = now
        self._failures = settings.login_failures
        rates: dict[PolicyName, RatePolicy] = {
            "register": settings.register_,
            "login": settings.login,
            "ingest": settings.ingest,
            "points": settings.points,
            "read": settings.read,
            "write": settings.write,
        }
        self._policies = {name: NamedPolicy(name, rate) for name, rate in rates.items()}
        self._of_devices = _device_policies(settings)
        self._throttles: OrderedDict[str, Throttle] = OrderedDict()
        self.throttled: dict[str, int] = {}
        self._windows = SlidingWindows(_CAPACITY)
        self._shared = cache.shares_counts
        self.refused: dict[str, int] = {}

    async def check(self, policy: PolicyName, subject: str, cost: int = 1) -> None:
        """Count `cost` for a subject.

        Raises:
            RateLimitedError: the policy's limit is reached.
        """
        if not self.enabled:
            return
        hits = self.admit(subject, ((policy, cost),))
        if not hits:
            return
        try:
            counts = await self._cache.count(hits)
        except StoreUnavailableError:
            return
        self.settle(hits, counts)

    def admit(self, subject: str, costs: Sequence[tuple[PolicyName, int]]) -> list[Hit]:
        """Count in process, without waiting; returns what a shared cache is still to be told.

        A cost above a limit counts as the limit: it passes where nothing else was counted.

        Raises:
            RateLimitedError: a limit is reached. Then nothing was counted.
        """
        if not self.enabled:
            return []
        now_s = self._now()
        counted: list[tuple[NamedPolicy, SlidingWindow, int]] = []
        hits: list[Hit] = []
        for name, wanted in costs:
            key = f"{name}:{subject}"
            policy = self._of_devices.get(key) or self._policies[name]
            cost = min(wanted, policy.limit)
            window = self._fitting_window(key, policy, cost, now_s)
            counted.append((policy, window, cost))
            if self._shared:
                hits.append(Hit(key, policy.window_s, cost))
        standings = current_standings.get()
        for policy, window, cost in counted:
            window.current += cost
            if standings is not None:
                standings.note(policy, window)
        return hits

    def _fitting_window(
        self, key: str, policy: NamedPolicy, cost: int, now_s: float
    ) -> SlidingWindow:
        if self._throttles and key in self._throttles:
            self._refuse_throttled(self._throttles[key], policy, now_s)
        window = self._windows.get(key)
        if window is None:
            window = self._windows.begin(key, policy.window_s, now_s)
        elapsed_s = window.turn(now_s)
        if window.used(elapsed_s) + cost > policy.limit:
            self._note_refusal(policy)
            retry_after_s = window.retry_after_s(policy.limit, cost, elapsed_s)
            self._throttle(key, policy, now_s, retry_after_s)
            raise RateLimitedError(policy.name, policy.limit, policy.window_s, retry_after_s)
        return window

    def _note_refusal(self, policy: NamedPolicy) -> None:
        self.refused[policy.name] = self.refused.get(policy.name, 0) + 1

    def _refuse_throttled(self, throttle: Throttle, policy: NamedPolicy, now_s: float) -> None:
        left_s = math.ceil(throttle.shut_for_s(now_s))
        if left_s:
            self._note_refusal(policy)
            raise ThrottledError(policy.name, policy.limit, policy.window_s, left_s)

    def _throttle(self, key: str, policy: NamedPolicy, now_s: float, retry_after_s: int) -> None:
        """Let a device that does not wait as it is told wait longer.

        Raises:
            ThrottledError: from now on.
        """
        if ":device:" not in key:
            return
        throttle = self._throttles.get(key)
        if throttle is None:
            throttle = self._throttles[key] = Throttle(policy.window_s)
            if len(self._throttles) > _THROTTLE_CAPACITY:
                self._throttles.popitem(last=False)
        if throttle.refused(now_s, retry_after_s):
            self.throttled[policy.name] = self.throttled.get(policy.name, 0) + 1
            left_s = math.ceil(throttle.shut_for_s(now_s))
            raise ThrottledError(policy.name, policy.limit, policy.window_s, left_s)

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

    async def has_failed(self, account: str) -> bool:
        """Whether a failure is counted now; False where the cache cannot tell."""
        if not self.enabled:
            return False
        hit = Hit(f"login_failures:{account}", self._failures.window_s, 0)
        try:
            return (await self._cache.log(hit, self._failures.limit)).count > 0
        except StoreUnavailableError:
            return False

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
        throttled = [(policy, float(count)) for policy, count in self.throttled.items()]
        yield labelled(
            CounterMetricFamily,
            "iotflow_throttled",
            "Times that a device was shut out for not waiting as it was told",
            "policy",
            throttled,
        )
        yield GaugeMetricFamily(
            "iotflow_rate_limit_windows", "Subjects with a running count", len(self._windows)
        )
        yield CounterMetricFamily(
            "iotflow_rate_limit_evictions",
            "Counts of limits that were forgotten early, for want of room",
            self._windows.evictions,
        )


def _device_policies(settings: RateLimitSettings) -> dict[str, NamedPolicy]:
    """What single devices have instead of the general limits, by the subject that is counted."""
    return {
        f"{name}:device:{device_id}": NamedPolicy(name, rate)
        for device_id, limits in settings.devices.items()
        for name, rate in (("ingest", limits.ingest), ("points", limits.points))
        if rate is not None
    }
