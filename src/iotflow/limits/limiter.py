"""Rate limits by named policy.

Each process knows the count that the cache last told, plus what it let in since; from that it
refuses without asking. So a limit costs no round trip of its own on the ingest path (the
count rides along with the write to the cache), and goes on, per process, without a cache or
with one that shares no counts.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NoReturn

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from iotflow.domain.limits import RatePolicy
from iotflow.errors import RateLimitedError, StoreUnavailableError
from iotflow.limits.standing import CountedPolicy, current_standings
from iotflow.limits.throttle import Throttle, ThrottledError
from iotflow.observability.metrics import labelled
from iotflow.settings import RateLimitSettings
from iotflow.stores.cache.protocol import CacheStore, Hit, WindowCount

PolicyName = Literal["register", "login", "ingest", "points", "read", "write"]
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
        self._policies: dict[str, CountedPolicy] = {
            name: CountedPolicy(name, rate) for name, rate in rates.items()
        }
        self._of_devices = _device_policies(settings)
        self._throttles: OrderedDict[tuple[str, str], Throttle] = OrderedDict()
        self.throttled: dict[str, int] = {}
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
        fitting = [self._fitting(name, subject, wanted, now_s) for name, wanted in costs]
        standings = current_standings.get()
        for policy, cost, left in fitting:
            policy.counts.count(subject, cost)
            if standings is not None:
                standings.note(policy, left)
        if not self._shared:
            return []
        return [
            Hit(f"{policy.name}:{subject}", policy.window_s, cost) for policy, cost, _ in fitting
        ]

    def _fitting(
        self, name: str, subject: str, wanted: int, now_s: float
    ) -> tuple[CountedPolicy, int, float]:
        """The policy, what is to be counted, and what is left then. Raises RateLimitedError."""
        policy = self._policy(name, subject) if self._of_devices else self._policies[name]
        limit = policy.limit
        cost = wanted if wanted < limit else limit
        if self._throttles:
            self._refuse_throttled(policy, subject, now_s)
        left = limit - policy.counts.used(subject, now_s) - cost
        if left < 0:
            self._refuse(policy, subject, cost, now_s)
        return policy, cost, left

    def _policy(self, name: str, subject: str) -> CountedPolicy:
        return self._of_devices.get((name, subject)) or self._policies[name]

    def _refuse(self, policy: CountedPolicy, subject: str, cost: int, now_s: float) -> NoReturn:
        self._note_refusal(policy)
        retry_after_s = policy.counts.retry_after_s(subject, policy.limit, cost, now_s)
        self._throttle(policy, subject, now_s, retry_after_s)
        raise RateLimitedError(policy.name, policy.limit, policy.window_s, retry_after_s)

    def _note_refusal(self, policy: CountedPolicy) -> None:
        self.refused[policy.name] = self.refused.get(policy.name, 0) + 1

    def _refuse_throttled(self, policy: CountedPolicy, subject: str, now_s: float) -> None:
        throttle = self._throttles.get((policy.name, subject))
        if throttle is None:
            return
        left_s = math.ceil(throttle.shut_for_s(now_s))
        if left_s:
            self._note_refusal(policy)
            raise ThrottledError(policy.name, policy.limit, policy.window_s, left_s)

    def _throttle(
        self, policy: CountedPolicy, subject: str, now_s: float, retry_after_s: int
    ) -> None:
        """Let a device that does not wait as it is told wait longer.

        Raises:
            ThrottledError: from now on.
        """
        if not subject.startswith("device:"):
            return
        key = (policy.name, subject)
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
            name, _, subject = hit.subject.partition(":")
            policy = self._policy(name, subject)
            if policy.counts.learn(subject, count.current, count.previous):
                standings = current_standings.get()
                if standings is not None:
                    used = policy.counts.used(subject, self._now())
                    standings.note(policy, policy.limit - used)

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
        counts = [
            policy.counts for policy in (*self._policies.values(), *self._of_devices.values())
        ]
        yield GaugeMetricFamily(
            "iotflow_rate_limit_windows", "Running counts of subjects", sum(map(len, counts))
        )
        yield CounterMetricFamily(
            "iotflow_rate_limit_evictions",
            "Counts of limits that were forgotten early, for want of room",
            sum(each.evictions for each in counts),
        )


def _device_policies(settings: RateLimitSettings) -> dict[tuple[str, str], CountedPolicy]:
    """What single devices have instead of the general limits, by policy and subject."""
    return {
        (name, f"device:{device_id}"): CountedPolicy(name, rate)
        for device_id, limits in settings.devices.items()
        for name, rate in (("ingest", limits.ingest), ("points", limits.points))
        if rate is not None
    }
