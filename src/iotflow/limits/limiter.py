"""Rate limits by named policy.

Each process knows the count that the cache last told, plus what it let in since; from that it
refuses without asking. So a limit costs no round trip of its own on the ingest path (the
count rides along with the write to the cache), and goes on, per process, without a cache or
with one that shares no counts.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NoReturn, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from iotflow.domain.limits import RatePolicy
from iotflow.errors import RateLimitedError, StoreUnavailableError
from iotflow.limits.standing import CountedPolicy, current_standings
from iotflow.limits.throttle import Throttle, ThrottledError
from iotflow.limits.window import CallerCounts, DeviceCounts
from iotflow.observability.metrics import labelled
from iotflow.settings import RateLimitSettings
from iotflow.stores.cache.protocol import CacheStore, Hit, WindowCount

CallPolicy = Literal["register", "login", "read", "write"]
IngestPolicy = Literal["ingest", "points"]
# A device that ingests, by its id, or whoever else calls, by a text.
S = TypeVar("S", int, str)
_CALLERS = 200_000
_DEVICE_PAGES = 100_000
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
        calls: dict[CallPolicy, RatePolicy] = {
            "register": settings.register_,
            "login": settings.login,
            "read": settings.read,
            "write": settings.write,
        }
        ingest: dict[IngestPolicy, RatePolicy] = {
            "ingest": settings.ingest,
            "points": settings.points,
        }
        self._of_calls: dict[str, CountedPolicy[str]] = {
            name: CountedPolicy(name, rate, CallerCounts(rate.window_s, _CALLERS))
            for name, rate in calls.items()
        }
        self._of_ingest: dict[str, CountedPolicy[int]] = {
            name: _device_policy(name, rate) for name, rate in ingest.items()
        }
        self._of_devices = _device_policies(settings)
        self._throttles: OrderedDict[tuple[str, int | str], Throttle] = OrderedDict()
        self.throttled: dict[str, int] = {}
        self._shared = cache.shares_counts
        self.refused: dict[str, int] = {}

    async def check(self, name: CallPolicy, subject: str, cost: int = 1) -> None:
        """Count `cost` for a subject.

        Raises:
            RateLimitedError: the policy's limit is reached.
        """
        if not self.enabled:
            return
        ((policy, counted, _),) = self._count(subject, ((self._of_calls[name], cost),))
        if not self._shared:
            return
        hit = Hit(f"{name}:{subject}", policy.window_s, counted)
        try:
            (count,) = await self._cache.count([hit])
        except StoreUnavailableError:
            return
        self._learn(policy, subject, count)

    def admit(self, device_id: int, costs: Sequence[tuple[IngestPolicy, int]]) -> list[Hit]:
        """Count what a device sends in process, without waiting; returns what a shared cache is
        still to be told.

        A cost above a limit counts as the limit: it passes where nothing else was counted.

        Raises:
            RateLimitedError: a limit is reached. Then nothing was counted.
        """
        if not self.enabled:
            return []
        # Few fleets have devices with limits of their own, and this runs for every submission.
        wanted = [
            (self._of_device(name, device_id) if self._of_devices else self._of_ingest[name], cost)
            for name, cost in costs
        ]
        counted = self._count(device_id, wanted)
        if not self._shared:
            return []
        return [
            Hit(f"{policy.name}:device:{device_id}", policy.window_s, cost)
            for policy, cost, _ in counted
        ]

    def settle(self, device_id: int, hits: Sequence[Hit], counts: Sequence[WindowCount]) -> None:
        """Learn what all processes together have counted for a device."""
        for hit, count in zip(hits, counts, strict=False):
            name, _, _ = hit.subject.partition(":")
            self._learn(self._of_device(name, device_id), device_id, count)

    def _of_device(self, name: str, device_id: int) -> CountedPolicy[int]:
        return self._of_devices.get((name, device_id)) or self._of_ingest[name]

    def _count(
        self, subject: S, wanted: Iterable[tuple[CountedPolicy[S], int]]
    ) -> list[tuple[CountedPolicy[S], int, float]]:
        """What was counted of each policy, and what is left then."""
        now_s = self._now()
        fitting = [self._fitting(policy, subject, cost, now_s) for policy, cost in wanted]
        standings = current_standings.get()
        for policy, cost, left in fitting:
            policy.counts.count(subject, cost)
            if standings is not None:
                standings.note(policy, left)
        return fitting

    def _fitting(
        self, policy: CountedPolicy[S], subject: S, wanted: int, now_s: float
    ) -> tuple[CountedPolicy[S], int, float]:
        """The policy, what is to be counted, and what is left then. Raises RateLimitedError."""
        limit = policy.limit
        cost = wanted if wanted < limit else limit
        if self._throttles:
            self._refuse_throttled(policy, subject, now_s)
        left = limit - policy.counts.used(subject, now_s) - cost
        if left < 0:
            self._refuse(policy, subject, cost, now_s)
        return policy, cost, left

    def _learn(self, policy: CountedPolicy[S], subject: S, count: WindowCount) -> None:
        if policy.counts.learn(subject, count.current, count.previous):
            standings = current_standings.get()
            if standings is not None:
                used = policy.counts.used(subject, self._now())
                standings.note(policy, policy.limit - used)

    def _refuse(self, policy: CountedPolicy[S], subject: S, cost: int, now_s: float) -> NoReturn:
        self._note_refusal(policy)
        retry_after_s = policy.counts.retry_after_s(subject, policy.limit, cost, now_s)
        self._throttle(policy, subject, now_s, retry_after_s)
        raise RateLimitedError(policy.name, policy.limit, policy.window_s, retry_after_s)

    def _note_refusal(self, policy: CountedPolicy[Any]) -> None:
        self.refused[policy.name] = self.refused.get(policy.name, 0) + 1

    def _refuse_throttled(self, policy: CountedPolicy[S], subject: S, now_s: float) -> None:
        throttle = self._throttles.get((policy.name, subject))
        if throttle is None:
            return
        left_s = math.ceil(throttle.shut_for_s(now_s))
        if left_s:
            self._note_refusal(policy)
            raise ThrottledError(policy.name, policy.limit, policy.window_s, left_s)

    def _throttle(
        self, policy: CountedPolicy[S], subject: S, now_s: float, retry_after_s: int
    ) -> None:
        """Let a device that does not wait as it is told wait longer.

        Raises:
            ThrottledError: from now on.
        """
        if isinstance(subject, str) and not subject.startswith("device:"):
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
            policy.counts
            for policies in (self._of_calls, self._of_ingest, self._of_devices)
            for policy in policies.values()
        ]
        yield GaugeMetricFamily(
            "iotflow_rate_limit_windows", "Running counts of subjects", sum(map(len, counts))
        )
        yield CounterMetricFamily(
            "iotflow_rate_limit_evictions",
            "Counts of limits that were forgotten early, for want of room",
            sum(each.evictions for each in counts),
        )


def _device_policies(settings: RateLimitSettings) -> dict[tuple[str, int], CountedPolicy[int]]:
    """What single devices have instead of the general limits, by policy and device."""
    return {
        (name, device_id): _device_policy(name, rate)
        for device_id, limits in settings.devices.items()
        for name, rate in (("ingest", limits.ingest), ("points", limits.points))
        if rate is not None
    }


def _device_policy(name: str, rate: RatePolicy) -> CountedPolicy[int]:
    return CountedPolicy(name, rate, DeviceCounts(rate.window_s, _DEVICE_PAGES))
