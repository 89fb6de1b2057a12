"""The cache that is switched off (`none://`)."""

import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import final

from iotflow.domain.points import LatestPoint, Submission
from iotflow.errors import StoreUnavailableError
from iotflow.stores.breaker import BreakerState
from iotflow.stores.cache.counters import CacheCounters
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
from iotflow.stores.statistics import Statistic


@final
class NoCache(CacheStore):
    """Remembers nothing: every look-up is a miss, no fill is taken, nobody is online.

    Logs and messages are no cache, and what needs them must go on: they are kept inside the
    process, so they reach no other replica. `alone` says that there is none. The clock and
    bounds are MemoryCache's.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        alone: bool = False,
        max_subjects: int = 100_000,
        max_subscribers: int = 1_000,
        max_messages: int = 1_000,
    ) -> None:
        self.counters = CacheCounters()
        self._monotonic = monotonic
        self._is_open = False
        self._alone = alone
        self._logs = SlidingLogs(max_subjects, self.counters)
        self._broker = Broker(max_subscribers, max_messages)

    @property
    def backend(self) -> str:
        return "none"

    @property
    def breaker_state(self) -> BreakerState:
        return BreakerState.CLOSED

    @property
    def hears(self) -> bool:
        return self._alone and self._is_open

    @property
    def is_in_process(self) -> bool:
        return False

    @property
    def shares_counts(self) -> bool:
        return False

    def sizes(self) -> Mapping[str, int]:
        """How many entries of each kind there are, dead ones not yet swept included."""
        return {"logs": len(self._logs), **self._broker.sizes()}

    async def statistics(self) -> list[Statistic]:
        return entry_statistics(self.sizes())

    async def open(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False
        self._logs.clear()
        self._broker.close()

    async def ping(self) -> None:
        self._check_open()

    def workers(self) -> Mapping[str, Work]:
        return {}

    async def key(self, digest: str) -> KeyEntry | None:
        self._check_open()
        self.counters.key_misses += 1
        return None

    def key_at_once(self, digest: str) -> KeyEntry | None:
        return None

    async def fill_key(self, digest: str, entry: KeyEntry) -> None:
        self._check_open()

    async def revoke_keys(self, digests: Collection[str]) -> None:
        self._check_open()

    async def forget_keys(self, digests: Collection[str]) -> None:
        self._check_open()

    async def latest(self, device_ids: Sequence[int]) -> Mapping[int, Sequence[LatestPoint]]:
        self._check_open()
        self.counters.latest_misses += len(device_ids)
        return {}

    async def begin_fill(self, device_ids: Sequence[int]) -> Mapping[int, int]:
        self._check_open()
        return dict.fromkeys(device_ids, 0)

    async def fill_latest(
        self, device_id: int, points: Sequence[LatestPoint], generation: int
    ) -> bool:
        self._check_open()
        return False

    async def drop_latest(self, device_id: int, written_us: int) -> None:
        self._check_open()

    async def record(self, submission: Submission, hits: Sequence[Hit]) -> list[WindowCount]:
        return await self.count(hits)

    async def mark_online(self, device_id: int) -> None:
        self._check_open()

    async def online(self, device_ids: Sequence[int]) -> set[int]:
        self._check_open()
        return set()

    async def forget_device(self, device_id: int) -> None:
        self._check_open()
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

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreUnavailableError("cache")
