"""What the Redis cache promises beyond the contract: epochs, and replicas that write at once."""

import asyncio
from collections.abc import AsyncGenerator
from itertools import count
from secrets import randbits, token_hex

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iotflow.domain.devices import DeviceStatus, KeyRecord
from iotflow.domain.points import LatestPoint, Point, Submission
from iotflow.stores.cache.protocol import Hit, KeyEntry
from iotflow.stores.cache.redis import RedisCache
from iotflow.stores.cache.ttls import CacheTtls
from tests.contract.cache_adapters import PATIENT, SteppedEpoch, running
from tests.contract.servers import server_url, servers

pytestmark = servers

_devices = count(randbits(40) + 1)
KNOWN = KeyEntry(KeyRecord(1, "iotd_x", 1, 1, "boiler", DeviceStatus.ACTIVE, True, 1))
REFUSED = KeyEntry(None)
VARIABLES = [
    "IOTFLOW_TEST_REDIS_URL",
    "IOTFLOW_TEST_REDIS_SENTINEL_URL",
    "IOTFLOW_TEST_REDIS_CLUSTER_URL",
]


@pytest.fixture
def epoch() -> SteppedEpoch:
    return SteppedEpoch()


@pytest.fixture(params=VARIABLES)
async def replicas(
    request: pytest.FixtureRequest, epoch: SteppedEpoch
) -> AsyncGenerator[tuple[RedisCache, RedisCache]]:
    """Two processes on one Redis, who have the epoch in common."""
    url = server_url(request.param)
    one, other = (RedisCache(url, CacheTtls(), epoch, limits=PATIENT) for _ in range(2))
    async with running(one), running(other):
        yield one, other


@pytest.fixture
def device() -> int:
    return next(_devices)


@pytest.fixture
def digest() -> str:
    return token_hex(32)


async def complete(cache: RedisCache, device: int, *points: LatestPoint) -> None:
    ticket = (await cache.begin_fill([device]))[device]
    assert await cache.fill_latest(device, points, ticket)


class TestReplicas:
    points = st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from("abc")), min_size=1, max_size=4, unique=True
    )
    batches = st.lists(st.tuples(points, st.booleans()), min_size=1, max_size=30)

    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(batches=batches)
    async def test_all_that_is_recorded_at_once_ends_in_the_newest(
        self,
        replicas: tuple[RedisCache, RedisCache],
        batches: list[tuple[list[tuple[int, str]], bool]],
    ) -> None:
        device, subject = next(_devices), token_hex(4)
        hit = Hit(f"{subject}:device:{device}", 3600, 1)
        await complete(replicas[0], device)
        newest: dict[str, tuple[int, int]] = {}
        calls = []
        for mark, (points, which) in enumerate(batches, start=1):
            made = tuple(Point(at_ms, name, mark) for at_ms, name in points)
            calls.append(replicas[which].record(Submission(device, 1, made, mark), [hit]))
            for at_ms, name in points:
                newest[name] = max(newest.get(name, (-1, -1)), (at_ms, mark))
        await asyncio.gather(*calls)
        for replica in replicas:
            found = (await replica.latest([device]))[device]
            assert {p.measurement: (p.timestamp_ms, p.value) for p in found} == newest
        (counted,) = await replicas[1].count([_look(hit)])
        assert counted.previous + counted.current == len(batches)

    async def test_fills_and_drops_of_another_replica_count_here(
        self, replicas: tuple[RedisCache, RedisCache], device: int
    ) -> None:
        one, other = replicas
        ticket = (await one.begin_fill([device]))[device]
        assert (await other.begin_fill([device]))[device] == ticket
        await other.drop_latest(device, 1)
        assert not await one.fill_latest(device, (), ticket)
        await complete(one, device)
        assert await other.latest([device]) == {device: ()}

    async def test_messages_reach_the_other(
        self, replicas: tuple[RedisCache, RedisCache], digest: str
    ) -> None:
        one, other = replicas
        async with one.subscribe(digest) as here, other.subscribe(digest) as there:
            await one.publish(digest, b"news")
            async with asyncio.timeout(5):
                assert (await here.next()).payload == b"news"
                assert (await there.next()).payload == b"news"

    async def test_a_channel_is_left_and_entered_again(
        self, replicas: tuple[RedisCache, RedisCache], digest: str
    ) -> None:
        one, other = replicas
        for number in range(20):
            async with one.subscribe(digest, f"{digest}{number % 3}") as subscription:
                await other.publish(digest, b"%d" % number)
                async with asyncio.timeout(5):
                    assert (await subscription.next()).payload == b"%d" % number


def _look(hit: Hit) -> Hit:
    return Hit(hit.subject, hit.window_s, 0)


class TestEpochs:
    async def test_what_was_cached_before_a_new_epoch_is_a_miss(
        self,
        replicas: tuple[RedisCache, RedisCache],
        epoch: SteppedEpoch,
        device: int,
        digest: str,
    ) -> None:
        one, other = replicas
        await complete(one, device)
        await one.fill_key(digest, KNOWN)
        assert await other.key(digest) == KNOWN
        epoch.doubt()
        for replica in replicas:
            assert await replica.key(digest) is None
            assert await replica.latest([device]) == {}
        await one.fill_key(digest, KNOWN)
        await complete(one, device)
        assert await other.key(digest) == KNOWN
        assert await other.latest([device]) == {device: ()}

    async def test_a_fill_that_began_in_an_older_epoch_is_not_believed(
        self, replicas: tuple[RedisCache, RedisCache], epoch: SteppedEpoch, device: int
    ) -> None:
        one, other = replicas
        ticket = (await one.begin_fill([device]))[device]
        epoch.doubt()
        await one.fill_latest(device, (), ticket)
        assert await other.latest([device]) == {}
        again = (await other.begin_fill([device]))[device]
        assert again != ticket
        assert not await one.fill_latest(device, (), ticket)
        assert await other.fill_latest(device, (), again)
        assert await one.latest([device]) == {device: ()}

    async def test_without_an_epoch_nothing_is_believed_or_filled_but_the_rest_works(
        self,
        replicas: tuple[RedisCache, RedisCache],
        epoch: SteppedEpoch,
        device: int,
        digest: str,
    ) -> None:
        one, _ = replicas
        revoked, known_later = token_hex(32), token_hex(32)
        await complete(one, device)
        await one.fill_key(digest, KNOWN)
        before, epoch.current = epoch.current, None
        assert await one.key(digest) is None
        assert await one.latest([device]) == {}
        tickets = await one.begin_fill([device])
        assert set(tickets) == {device}
        assert not await one.fill_latest(device, (), tickets[device])
        await one.fill_key(known_later, KNOWN)
        await one.revoke_keys([revoked])
        assert await one.key(revoked) == REFUSED
        hit = Hit(f"x:device:{device}", 3600, 1)
        (counted,) = await one.record(Submission(device, 1, (Point(1, "t", 1),), 1), [hit])
        assert counted.current == 1
        assert await one.online([device]) == {device}
        epoch.current = before
        assert await one.key(known_later) is None
        assert await one.key(digest) == KNOWN

    async def test_a_tombstone_counts_in_every_epoch(
        self, replicas: tuple[RedisCache, RedisCache], epoch: SteppedEpoch, digest: str
    ) -> None:
        one, other = replicas
        await one.revoke_keys([digest])
        epoch.doubt()
        await other.fill_key(digest, KNOWN)
        assert await other.key(digest) == REFUSED
        await one.forget_keys([digest])
        assert await other.key(digest) == REFUSED

    async def test_a_hold_counts_in_every_epoch(
        self, replicas: tuple[RedisCache, RedisCache], epoch: SteppedEpoch, digest: str
    ) -> None:
        one, other = replicas
        await one.forget_keys([digest])
        epoch.doubt()
        await other.fill_key(digest, KNOWN)
        assert await other.key(digest) is None
