"""The memory cache: the rules of the cache role, inside one process."""

import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import final

from iotflow.domain.points import LatestPoint, Submission
from iotflow.errors import StoreUnavailableError
from iotflow.stores.breaker import BreakerState
from iotflow.stores.cache.counters import CacheCounters
from iotflow.stores.cache.expiring import ExpiringIds
from iotflow.stores.cache.memory.keys import KeyEntries
from iotflow.stores.cache.memory.latest import LatestEntries
from iotflow.stores.cache.memory.logs import SlidingLogs
from iotflow.stores.cache.memory.pubsub import Broker
from iotflow.stores.cache.protocol import (
    CacheStore,
    Hit,
    KeyEntry,
    LogCount,
    Subscription,
    WindowCount,
    Work,
)
from iotflow.stores.cache.statistics import entry_statistics
from iotflow.stores.cache.ttls import CacheTtls
from iotflow.stores.statistics import Statistic


@final
class MemoryCache(CacheStore):
    """Implements `CacheStore` for one process. No call but `Subscription.next` ever waits.

    Everything ages by `monotonic`, seconds, so that a set clock ends nothing.

    Bounds: latest entries of `max_devices`, with `max_points` between them; `max_keys` of
    each kind of key entry and online flags of `max_devices`, or up to twice as many (see
    ExpiringMap); logs of `max_subjects` for each length of window; `max_subscribers` with
    `max_messages` each. What is beyond pushes out latest entries and logs that were used least
    recently and others that were put first; one subscriber too many is refused with
    OverloadedError.

    `counters` and `sizes()` are for metrics.
    """

    def __init__(
        self,
        ttls: CacheTtls,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        max_devices: int = 100_000,
        max_points: int = 1_000_000,
        max_keys: int = 100_000,
        max_subjects: int = 100_000,
        max_subscribers: int = 1_000,
        max_messages: int = 1_000,
    ) -> None:
        self.counters = CacheCounters()
        self._monotonic = monotonic
        self._is_open = False
        self._keys = KeyEntries(ttls, max_keys, self.counters)
        self._latest = LatestEntries(ttls, max_devices, max_points, self.counters)
        self._online: ExpiringIds[bool] = ExpiringIds(ttls.online_s, max_devices)
        self._logs = SlidingLogs(max_subjects, self.counters)
        self._broker = Broker(max_subscribers, max_messages)

    @property
    def backend(self) -> str:
        return "memory"

    @property
    def breaker_state(self) -> BreakerState:
        return BreakerState.CLOSED

    @property
    def hears(self) -> bool:
        return self._is_open

    @property
    def is_in_process(self) -> bool:
        return True

    @property
    def shares_counts(self) -> bool:
        return False

    def sizes(self) -> Mapping[str, int]:
        """How many entries of each kind there are, dead ones not yet swept included."""
        return {
            **self._keys.sizes(),
            **self._latest.sizes(),
            "online": len(self._online),
            "logs": len(self._logs),
            **self._broker.sizes(),
        }

    async def statistics(self) -> list[Statistic]:
        return entry_statistics(self.sizes())

    async def open(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        """Forget everything, and end the subscriptions."""
        self._is_open = False
        for entries in (self._keys, self._latest, self._online, self._logs):
            entries.clear()
        self._broker.close()

    async def ping(self) -> None:
        self._check_open()

    def workers(self) -> Mapping[str, Work]:
        return {}

    async def key(self, digest: str) -> KeyEntry | None:
        self._check_open()
        return self._keys.look(digest, self._monotonic())

    def key_at_once(self, digest: str) -> KeyEntry | None:
        return self._keys.glance(digest, self._monotonic()) if self._is_open else None

    async def fill_key(self, digest: str, entry: KeyEntry) -> None:
        self._check_open()
        self._keys.fill(digest, entry, self._monotonic())

    async def revoke_keys(self, digests: Collection[str]) -> None:
        self._check_open()
        self._keys.revoke(digests, self._monotonic())

    async def forget_keys(self, digests: Collection[str]) -> None:
        self._check_open()
        self._keys.forget(digests, self._monotonic())

    async def latest(self, device_ids: Sequence[int]) -> Mapping[int, Sequence[LatestPoint]]:
        self._check_open()
        return self._latest.look(device_ids, self._monotonic())

    async def begin_fill(self, device_ids: Sequence[int]) -> Mapping[int, int]:
        self._check_open()
        return self._latest.begin_fill(device_ids, self._monotonic())

    async def fill_latest(
        self, device_id: int, points: Sequence[LatestPoint], generation: int
    ) -> bool:
        self._check_open()
        return self._latest.fill(device_id, points, generation, self._monotonic())

    async def drop_latest(self, device_id: int, written_us: int) -> None:
        self._check_open()
        self._latest.drop(device_id, written_us, self._monotonic())

    async def record(self, submission: Submission, hits: Sequence[Hit]) -> list[WindowCount]:
        self._check_open()
        now_s = self._monotonic()
        self._latest.record(submission, now_s)
        self._note_online(submission.device_id, now_s)
        return []

    async def mark_online(self, device_id: int) -> None:
        self._check_open()
        self._note_online(device_id, self._monotonic())

    async def online(self, device_ids: Sequence[int]) -> set[int]:
        self._check_open()
        now_s = self._monotonic()
        return {device_id for device_id in device_ids if self._online.get(device_id, now_s)}

    async def forget_device(self, device_id: int) -> None:
        self._check_open()
        self._latest.end(device_id)
        self._online.pop(device_id)
        self._logs.forget(f":device:{device_id}")

    async def count(self, hits: Sequence[Hit]) -> list[WindowCount]:
        self._check_open()
        return []

    async def log(self, hit: Hit, limit: int) -> LogCount:
        self._check_open()
        return self._logs.log(hit, limit, self._monotonic())

    async def publish(self, channel: str, payload: bytes) -> None:
        self._check_open()
        self._broker.publish(channel, payload)

    def subscribe(self, *channels: str) -> AbstractAsyncContextManager[Subscription]:
        return self._subscribed(*channels)

    @asynccontextmanager
    async def _subscribed(self, *channels: str) -> AsyncGenerator[Subscription]:
        self._check_open()
        async with self._broker.subscribe(*channels) as subscription:
            yield subscription

    def _note_online(self, device_id: int, now_s: float) -> None:
        evicted = self._online.put(device_id, True, now_s)
        if evicted is not None:
            self.counters.evictions += len(evicted.values)

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreUnavailableError("cache")
