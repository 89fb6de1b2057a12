"""The Redis cache: the rules of the cache role, shared by all replicas."""

import asyncio
import time
from collections.abc import (
    AsyncGenerator,
    Callable,
    Collection,
    Generator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import final

from iotflow.domain.points import LatestPoint, Submission
from iotflow.errors import StoreUnavailableError
from iotflow.stores.breaker import Breaker, BreakerState
from iotflow.stores.cache.counters import CacheCounters
from iotflow.stores.cache.protocol import (
    CacheStore,
    Epoch,
    Hit,
    KeyEntry,
    LogCount,
    Subscription,
    WindowCount,
    Work,
)
from iotflow.stores.cache.redis.calls import Calls
from iotflow.stores.cache.redis.cluster import Cluster
from iotflow.stores.cache.redis.counting import Counting
from iotflow.stores.cache.redis.doubts import Doubts
from iotflow.stores.cache.redis.histories import Histories
from iotflow.stores.cache.redis.keys import Keys
from iotflow.stores.cache.redis.latest import LatestEntries
from iotflow.stores.cache.redis.mending import Mending
from iotflow.stores.cache.redis.messages import Messages
from iotflow.stores.cache.redis.pipe import PipeCounters, PipeLimits
from iotflow.stores.cache.redis.statistics import pipe_statistics, server_statistics
from iotflow.stores.cache.redis.topology import OneServer, Topology
from iotflow.stores.cache.redis.urls import parse_url
from iotflow.stores.cache.statistics import entry_statistics
from iotflow.stores.cache.ttls import CacheTtls
from iotflow.stores.statistics import Statistic


@final
class RedisCache(CacheStore):
    """Implements `CacheStore` on a Redis server, a Sentinel service or a Redis Cluster.

    For the forms of `url` see `urls.RedisUrl`. What is cached counts in the `epoch` alone in
    which it was looked up. Windows are counted by the server's clock.

    Two workers belong to it, which its owner runs: `mend`, without which nothing that was
    doubted is ever put right, and `listen`, without which no message arrives.

    Every call ends within `limits.command_s`, a read within twice that. `counters`, `pipes`
    and `breaker_state` are for metrics; through `calls` goes what the cache asks of Redis.

    Raises:
        ConfigurationError: the URL cannot work.
    """

    def __init__(
        self,
        url: str,
        ttls: CacheTtls,
        epoch: Epoch,
        *,
        limits: PipeLimits | None = None,
        max_doubts: int = 10_000,
        max_subscribers: int = 1_000,
        max_messages: int = 1_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counters = CacheCounters()
        self.pipes = PipeCounters()
        self._epoch = epoch
        self._is_open = False
        self._doubts = Doubts(max_doubts, self._distrust, monotonic)
        self._histories = Histories(epoch)
        parsed = parse_url(url)
        limits = limits or PipeLimits()
        kind = Cluster if parsed.kind == "cluster" else OneServer
        self._topology: Topology = kind(
            parsed,
            self._histories,
            lambda: Breaker("cache", on_open=self._distrust, monotonic=monotonic),
            limits,
            self.pipes,
        )
        calls = self.calls = Calls(self._topology)
        self._keys = Keys(calls, ttls, epoch, self.counters)
        self._latest = LatestEntries(calls, ttls, epoch, self._doubts, self.counters)
        self._counting = Counting(calls)
        self._mending = Mending(
            calls, self._topology, self._latest, self._doubts, self._histories, epoch
        )
        self._messages = Messages(
            self._topology.connect_messages,
            self._distrust,
            max_subscribers,
            max_messages,
            limits.silence_s,
            monotonic,
        )

    @property
    def backend(self) -> str:
        return "redis"

    @property
    def breaker_state(self) -> BreakerState:
        """The worst of all servers'."""
        states = [pipe.breaker.state for pipe in self._topology.pipes()]
        for state in (BreakerState.OPEN, BreakerState.HALF_OPEN):
            if state in states:
                return state
        return BreakerState.CLOSED

    @property
    def hears(self) -> bool:
        """Whether messages of others surely arrive here; false `limits.silence_s` after they
        do not.
        """
        return self._messages.hears

    @property
    def is_in_process(self) -> bool:
        return False

    @property
    def shares_counts(self) -> bool:
        return True

    def workers(self) -> Mapping[str, Work]:
        return {"cache_mend": self.mend, "cache_listen": self.listen}

    @property
    def doubted(self) -> int:
        """How many devices' entries wait to be put right."""
        return len(self._doubts)

    def sizes(self) -> Mapping[str, int]:
        """How many things of each kind this process keeps for the cache."""
        return {"doubts": len(self._doubts), **self._messages.sizes()}

    async def statistics(self) -> list[Statistic]:
        self._check_open()
        servers = await server_statistics(self._topology.pipes())
        return [*servers, *pipe_statistics(self.pipes), *entry_statistics(self.sizes())]

    async def open(self) -> None:
        if self._is_open:
            return
        await self._topology.open()
        try:
            await self._mending.recognise()
        except BaseException:
            await self._topology.close()
            raise
        self._is_open = True

    async def close(self) -> None:
        """End the connections and the subscriptions."""
        self._is_open = False
        self._messages.close()
        await self._topology.close()

    async def mend(self, stop: asyncio.Event) -> None:
        """Put right what is in doubt, until `stop`; a supervised worker runs this."""
        await self._mending.run(stop, lambda: self._is_open)

    async def listen(self, stop: asyncio.Event) -> None:
        """Receive messages until `stop`; a supervised worker runs this."""
        await self._messages.listen(stop)

    async def ping(self) -> None:
        self._check_open()
        await self._mending.ping()

    async def key(self, digest: str) -> KeyEntry | None:
        self._check_open()
        return await self._keys.look(digest)

    def key_at_once(self, digest: str) -> KeyEntry | None:
        return None

    async def fill_key(self, digest: str, entry: KeyEntry) -> None:
        self._check_open()
        await self._keys.fill(digest, entry)

    async def revoke_keys(self, digests: Collection[str]) -> None:
        with self._all_in_doubt():
            self._check_open()
            await self._keys.revoke(digests)

    async def forget_keys(self, digests: Collection[str]) -> None:
        with self._all_in_doubt():
            self._check_open()
            await self._keys.forget(digests)

    async def latest(self, device_ids: Sequence[int]) -> Mapping[int, Sequence[LatestPoint]]:
        self._check_open()
        return await self._latest.look(device_ids)

    async def begin_fill(self, device_ids: Sequence[int]) -> Mapping[int, int]:
        self._check_open()
        return await self._latest.begin_fill(device_ids)

    async def fill_latest(
        self, device_id: int, points: Sequence[LatestPoint], generation: int
    ) -> bool:
        self._check_open()
        return await self._latest.fill(device_id, points, generation)

    async def drop_latest(self, device_id: int, written_us: int) -> None:
        try:
            self._check_open()
            await self._latest.drop(device_id, written_us)
        except BaseException:
            self._doubts.add(device_id, written_us)
            raise

    async def record(self, submission: Submission, hits: Sequence[Hit]) -> list[WindowCount]:
        try:
            self._check_open()
            return await self._latest.record(submission, hits)
        except BaseException:
            self._doubts.add(submission.device_id)
            raise

    async def mark_online(self, device_id: int) -> None:
        self._check_open()
        await self._latest.mark_online(device_id)

    async def online(self, device_ids: Sequence[int]) -> set[int]:
        self._check_open()
        return await self._latest.online(device_ids)

    async def forget_device(self, device_id: int) -> None:
        with self._all_in_doubt():
            self._check_open()
            await self._latest.forget(device_id)

    async def count(self, hits: Sequence[Hit]) -> list[WindowCount]:
        self._check_open()
        return await self._counting.count(hits)

    async def log(self, hit: Hit, limit: int) -> LogCount:
        self._check_open()
        return await self._counting.log(hit, limit)

    async def publish(self, channel: str, payload: bytes) -> None:
        self._check_open()
        reply = await self._topology.publish(channel, payload)
        if isinstance(reply, Exception):
            raise StoreUnavailableError("cache") from reply

    def subscribe(self, *channels: str) -> AbstractAsyncContextManager[Subscription]:
        return self._subscribed(*channels)

    @asynccontextmanager
    async def _subscribed(self, *channels: str) -> AsyncGenerator[Subscription]:
        self._check_open()
        async with self._messages.subscribe(*channels) as subscription:
            yield subscription

    @contextmanager
    def _all_in_doubt(self) -> Generator[None]:
        """Whatever is cached counts no more where a call fails that was to take something back."""
        try:
            yield
        except BaseException:
            self._distrust()
            raise

    def _distrust(self) -> None:
        self._epoch.doubt()
        self._doubts.keep_drops()

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreUnavailableError("cache")
