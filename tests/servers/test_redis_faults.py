"""The Redis cache and a server that freezes, dies, forgets, or comes back with old data."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from iotflow.domain.devices import DeviceStatus, KeyRecord
from iotflow.domain.points import LatestPoint, Point, Submission
from iotflow.errors import StoreUnavailableError
from iotflow.stores.breaker import BreakerState
from iotflow.stores.cache.protocol import Hit, KeyEntry
from iotflow.stores.cache.redis import RedisCache
from iotflow.stores.cache.redis.pipe import PipeLimits
from iotflow.stores.cache.ttls import CacheTtls
from tests.contract.cache_adapters import PATIENT, SteppedEpoch, running, until
from tests.servers.redis_server import RedisServer

pytestmark = pytest.mark.servers

_devices = count(1)
# A call's limit, and what a busy machine may add.
_LIMIT_S, _BUDGET_S = 0.25, 2.0
KNOWN = KeyEntry(KeyRecord(1, "iotd_x", 1, 1, "boiler", DeviceStatus.ACTIVE, True, 1))
REFUSED = KeyEntry(None)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def epoch() -> SteppedEpoch:
    return SteppedEpoch()


@asynccontextmanager
async def cache_on(
    server: RedisServer, epoch: SteppedEpoch, **options: Any
) -> AsyncGenerator[RedisCache]:
    cache = RedisCache(server.url, CacheTtls(), epoch, **options)
    async with running(cache):
        yield cache


@pytest.fixture
async def cache(server: RedisServer, epoch: SteppedEpoch) -> AsyncGenerator[RedisCache]:
    async with cache_on(server, epoch) as cache:
        yield cache


@pytest.fixture
def device() -> int:
    return next(_devices)


def submission(device: int, mark: int, value: float = 1.5) -> Submission:
    return Submission(device, 1, (Point(mark, "t", value),), mark)


async def complete(cache: RedisCache, device: int, *points: LatestPoint) -> None:
    ticket = (await cache.begin_fill([device]))[device]
    assert await cache.fill_latest(device, points, ticket)


async def until_it_answers(cache: RedisCache) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await cache.ping()
            except StoreUnavailableError:
                await asyncio.sleep(0.02)
            else:
                return


class TestScripts:
    async def test_a_server_that_lost_its_scripts_is_given_them_again(
        self, server: RedisServer, cache: RedisCache, device: int
    ) -> None:
        digest, hit = token_hex(32), Hit(f"ingest:device:{device}", 60, 1)
        for mark in range(1, 4):
            server.client.script_flush()
            ticket = (await cache.begin_fill([device]))[device]
            server.client.script_flush()
            assert await cache.fill_latest(device, (), ticket)
            server.client.script_flush()
            (counted,) = await cache.record(submission(device, mark), [hit])
            assert counted.previous + counted.current == mark
            server.client.script_flush()
            assert (await cache.log(hit, 10)).count == mark
        server.client.script_flush()
        await cache.fill_key(digest, KNOWN)
        assert await cache.key(digest) == KNOWN
        server.client.script_flush()
        await cache.forget_keys([digest])
        assert await cache.key(digest) is None

    async def test_a_record_is_one_command(
        self, server: RedisServer, cache: RedisCache, device: int
    ) -> None:
        hits = [Hit(f"{policy}:device:{device}", 10, 1) for policy in ("ingest", "points")]
        await complete(cache, device)
        heard: list[str] = []
        with server.client.monitor() as monitor:
            batches = cache.pipes.batches
            await asyncio.gather(
                *[cache.record(submission(device, mark), hits) for mark in range(20)]
            )
            assert cache.pipes.batches - batches <= 2  # the workers' PING may come in between
            server.client.set("end", "1")
            for command in monitor.listen():
                if command["client_type"] != "lua":
                    heard.append(command["command"].split()[0])
                if command["command"].startswith("SET end"):
                    break
        assert heard.count("EVALSHA") == 20
        # The rest is the workers' and this test's own.
        assert set(heard) <= {"EVALSHA", "SET", "PING", "HELLO", "CLIENT"}


class TestFrozen:
    async def test_every_call_ends_in_time_and_the_cache_is_not_trusted_after(
        self, server: RedisServer, cache: RedisCache, epoch: SteppedEpoch, device: int
    ) -> None:
        await complete(cache, device)
        doubts, hit = epoch.doubts, Hit("x", 10, 1)
        server.freeze()
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: cache.ping(),
            lambda: cache.key(token_hex(32)),
            lambda: cache.fill_key(token_hex(32), KNOWN),
            lambda: cache.revoke_keys([token_hex(32)]),
            lambda: cache.forget_keys([token_hex(32)]),
            lambda: cache.latest([device]),
            # A device in doubt is not filled, so these are others.
            lambda: cache.begin_fill([next(_devices)]),
            lambda: cache.fill_latest(next(_devices), (), 1),
            lambda: cache.drop_latest(device, 1),
            lambda: cache.record(submission(device, 1), ()),
            lambda: cache.mark_online(device),
            lambda: cache.online([device]),
            lambda: cache.forget_device(device),
            lambda: cache.count([hit]),
            lambda: cache.log(hit, 1),
            lambda: cache.publish("x", b""),
        ]
        for _ in range(2):
            for call in calls:
                began = time.monotonic()
                with pytest.raises(StoreUnavailableError):
                    await call()
                assert time.monotonic() - began < _BUDGET_S
        assert cache.breaker_state is not BreakerState.CLOSED
        assert cache.pipes.timeouts > 0
        assert epoch.doubts > doubts
        server.thaw()
        await until_it_answers(cache)
        assert cache.breaker_state is BreakerState.CLOSED
        assert (await cache.latest([device])) == {}
        await until(lambda: cache.doubted == 0 and cache.hears)
        await complete(cache, device)
        assert await cache.latest([device]) == {device: ()}

    async def test_many_at_once_end_together(
        self, server: RedisServer, cache: RedisCache, device: int
    ) -> None:
        server.freeze()
        began = time.monotonic()
        outcomes = await asyncio.gather(
            *[cache.record(submission(device + n, 1), ()) for n in range(500)],
            return_exceptions=True,
        )
        # One after the other, they would wait for two minutes.
        assert time.monotonic() - began < _BUDGET_S
        assert {type(outcome) for outcome in outcomes} == {StoreUnavailableError}
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            await cache.ping()
        assert time.monotonic() - began < _LIMIT_S  # the breaker is open: nothing is waited for
        server.thaw()

    async def test_what_waits_is_bounded(
        self, server: RedisServer, epoch: SteppedEpoch, device: int
    ) -> None:
        async with cache_on(server, epoch, limits=PipeLimits(max_waiting=10)) as cache:
            server.freeze()
            outcomes = await asyncio.gather(
                *[cache.record(submission(device, 1), ()) for _ in range(50)],
                return_exceptions=True,
            )
            server.thaw()
            assert {type(outcome) for outcome in outcomes} == {StoreUnavailableError}
            assert cache.pipes.overflows >= 39

    async def test_it_says_that_it_hears_nothing(
        self, server: RedisServer, cache: RedisCache, epoch: SteppedEpoch
    ) -> None:
        assert cache.hears
        server.freeze()
        frozen = time.monotonic()
        await until(lambda: not cache.hears)
        assert time.monotonic() - frozen < _BUDGET_S
        server.thaw()
        await until(lambda: cache.hears)

    async def test_a_short_pause_is_mended_without_a_new_epoch(
        self, server: RedisServer, epoch: SteppedEpoch, device: int
    ) -> None:
        async with cache_on(server, epoch, limits=PipeLimits(command_s=0.1)) as cache:
            await complete(cache, device)
            doubts = epoch.doubts
            server.client.client_pause(10_000, all=False)
            with pytest.raises(StoreUnavailableError):
                await cache.record(submission(device, 1), ())
            assert cache.doubted == 1
            server.client.client_unpause()
            await until(lambda: cache.doubted == 0)
            assert await cache.latest([device]) == {}
            assert epoch.doubts == doubts

    async def test_a_pause_within_its_limits_costs_a_cache_nothing(
        self, server: RedisServer, epoch: SteppedEpoch, device: int
    ) -> None:
        async with cache_on(server, epoch, limits=PATIENT) as cache:
            await complete(cache, device)
            doubts = epoch.doubts
            server.client.client_pause(1_000, all=True)
            await cache.record(submission(device, 1), ())
            assert [point.value for point in (await cache.latest([device]))[device]] == [1.5]
            assert cache.hears
            assert epoch.doubts == doubts


class TestDoubts:
    @pytest.mark.parametrize("fails", ["revoke_keys", "forget_keys", "forget_device"])
    async def test_what_cannot_be_taken_back_ends_belief_in_all(
        self, server: RedisServer, epoch: SteppedEpoch, device: int, fails: str
    ) -> None:
        async with cache_on(server, epoch) as cache:
            server.freeze()
            doubts = epoch.doubts
            with pytest.raises(StoreUnavailableError):
                await getattr(cache, fails)(device if fails == "forget_device" else ["d"])
            assert epoch.doubts > doubts
            server.thaw()

    async def test_more_doubts_than_fit_end_belief_in_all(
        self, server: RedisServer, epoch: SteppedEpoch
    ) -> None:
        async with cache_on(server, epoch, max_doubts=3) as cache:
            server.freeze()
            doubts = epoch.doubts
            calls = [cache.record(submission(next(_devices), 1), ()) for _ in range(4)]
            await asyncio.gather(*calls, return_exceptions=True)
            assert epoch.doubts > doubts
            assert cache.doubted <= 3
            server.thaw()

    async def test_a_drop_that_failed_is_told_later_and_keeps_off_what_it_should(
        self, server: RedisServer, cache: RedisCache, device: int
    ) -> None:
        server.freeze()
        with pytest.raises(StoreUnavailableError):
            await cache.drop_latest(device, 5)
        await asyncio.sleep(0.6)
        server.thaw()
        await until_it_answers(cache)
        await until(lambda: cache.doubted == 0)
        await complete(cache, device)
        await cache.record(submission(device, 4), ())
        assert await cache.latest([device]) == {}

    async def test_a_caller_that_gives_up_leaves_a_doubt(
        self, server: RedisServer, cache: RedisCache, device: int
    ) -> None:
        await complete(cache, device)
        recording = asyncio.create_task(cache.record(submission(device, 1), ()))
        await asyncio.sleep(0)
        recording.cancel()
        await asyncio.wait({recording})
        assert cache.doubted == 1
        assert await cache.latest([device]) == {}
        await until(lambda: cache.doubted == 0)


class TestRestarts:
    async def test_a_server_that_comes_back_empty_is_used_again(
        self, server: RedisServer, cache: RedisCache, epoch: SteppedEpoch, device: int
    ) -> None:
        await complete(cache, device)
        doubts = epoch.doubts
        server.kill()
        with pytest.raises(StoreUnavailableError):
            await cache.latest([device])
        await until(lambda: epoch.doubts > doubts)
        server.start()
        await until_it_answers(cache)
        await until(lambda: cache.hears)
        assert await cache.latest([device]) == {}
        await complete(cache, device)
        await cache.record(submission(device, 1), ())
        assert list(await cache.latest([device])) == [device]

    async def test_old_data_that_come_back_are_not_believed(
        self, server: RedisServer, cache: RedisCache, epoch: SteppedEpoch, device: int
    ) -> None:
        digest = token_hex(32)
        await cache.fill_key(digest, KNOWN)
        await complete(cache, device, LatestPoint(1, "t", "old", "", 1))
        server.client.save()
        await cache.revoke_keys([digest])
        await cache.record(submission(device, 2), ())
        server.kill()
        server.start()
        assert server.client.get(f"device:apikey:{digest}")  # the tombstone is lost
        await until_it_answers(cache)
        assert await cache.key(digest) is None
        assert await cache.latest([device]) == {}

    async def test_a_process_that_starts_on_old_data_does_not_believe_them(
        self, server: RedisServer, epoch: SteppedEpoch, device: int
    ) -> None:
        digest = token_hex(32)
        async with cache_on(server, epoch) as cache:
            await cache.fill_key(digest, KNOWN)
            await until(lambda: any(server.client.scan_iter("cache:history:*")))
            server.client.save()
            await cache.revoke_keys([digest])
        server.kill()
        server.start()
        async with cache_on(server, epoch) as cache:
            assert await cache.key(digest) is None

    async def test_a_process_that_starts_on_a_server_known_to_others_believes(
        self, server: RedisServer, cache: RedisCache, epoch: SteppedEpoch
    ) -> None:
        digest, doubts = token_hex(32), epoch.doubts
        await until(lambda: any(server.client.scan_iter("cache:history:*")))
        await cache.fill_key(digest, KNOWN)
        async with cache_on(server, epoch) as another:
            assert await another.key(digest) == KNOWN
        assert epoch.doubts == doubts

    async def test_it_opens_as_soon_as_the_server_is_there(
        self, tmp_path: Path, epoch: SteppedEpoch
    ) -> None:
        server = RedisServer(tmp_path / "later")
        cache = RedisCache(server.url, CacheTtls(), epoch)
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                await cache.open()
        server.start()
        try:
            async with running(cache):
                await cache.ping()
        finally:
            server.stop()

    async def test_a_lost_subscription_is_a_doubt_and_comes_back(
        self, server: RedisServer, cache: RedisCache, epoch: SteppedEpoch
    ) -> None:
        async with cache.subscribe("news") as subscription:
            doubts = epoch.doubts
            server.client.client_kill_filter(_type="pubsub")
            await until(lambda: epoch.doubts > doubts)
            await until(lambda: cache.hears)
            await cache.publish("news", b"again")
            async with asyncio.timeout(2):
                assert (await subscription.next()).payload == b"again"

    async def test_a_server_that_becomes_a_replica_is_left(
        self, server: RedisServer, cache: RedisCache, device: int
    ) -> None:
        server.client.replicaof("127.0.0.1", 1)
        with pytest.raises(StoreUnavailableError):
            await cache.record(submission(device, 1), ())
        await until(lambda: cache.pipes.reconnects > 0)
        with pytest.raises(StoreUnavailableError):
            await cache.ping()
        server.client.replicaof("NO", "ONE")
        await until_it_answers(cache)
        await cache.record(submission(device, 2), ())
