"""What the memory cache promises beyond the contract: bounds, counters, clocks."""

import asyncio
import tracemalloc
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotflow.domain.devices import DeviceStatus, KeyRecord
from iotflow.domain.points import LatestPoint, Point, Submission
from iotflow.errors import OverloadedError, StoreUnavailableError
from iotflow.stores.cache.expiring import ExpiringMap
from iotflow.stores.cache.local import LocalCache
from iotflow.stores.cache.memory import MemoryCache
from iotflow.stores.cache.none import NoCache
from iotflow.stores.cache.protocol import Hit, KeyEntry
from iotflow.stores.cache.ttls import CacheTtls
from tests.unit.memory import memory_of

TTLS = CacheTtls()
KNOWN = KeyEntry(
    KeyRecord(1, "iotd_AbCdEfGh", 2, 3, "boiler", DeviceStatus.ACTIVE, True, 1_767_225_600_000)
)
UNKNOWN = KeyEntry(None)


@dataclass
class Clock:
    now_s: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def opened(clock: Clock, **bounds: Any) -> MemoryCache:
    cache = MemoryCache(TTLS, clock, **bounds)
    await cache.open()
    return cache


async def complete(cache: MemoryCache, device_id: int, *names: str) -> None:
    generation = (await cache.begin_fill([device_id]))[device_id]
    points = [LatestPoint(1, name, 1, "", 1) for name in names]
    assert await cache.fill_latest(device_id, points, generation)


async def hits(cache: MemoryCache, *device_ids: int) -> set[int]:
    return set(await cache.latest(device_ids))


def submission(device_id: int, written_us: int, *names: str) -> Submission:
    return Submission(device_id, 1, tuple(Point(2, name, 2) for name in names), written_us)


class TestLatestBounds:
    async def test_full_it_gives_up_the_device_least_recently_used(self, clock: Clock) -> None:
        cache = await opened(clock, max_devices=3)
        for device_id in (1, 2, 3):
            await complete(cache, device_id)
        await cache.latest([1])
        await cache.record(submission(2, 2, "t"), ())
        await complete(cache, 4)
        assert await hits(cache, 1, 2, 3, 4) == {1, 2, 4}
        assert cache.counters.evictions == 1
        assert cache.sizes()["latest"] == 3

    async def test_recording_for_devices_that_nobody_reads_takes_no_room(
        self, clock: Clock
    ) -> None:
        cache = await opened(clock)
        for device_id in range(100):
            await cache.record(submission(device_id, 1, "t"), ())
        assert cache.sizes()["latest"] == 0

    async def test_points_of_all_devices_have_a_bound(self, clock: Clock) -> None:
        cache = await opened(clock, max_points=5)
        await complete(cache, 1, "a", "b")
        await complete(cache, 2, "a", "b")
        await complete(cache, 3)
        await cache.record(submission(3, 2, "a", "b"), ())
        assert await hits(cache, 1, 2, 3) == {2, 3}
        assert cache.sizes()["latest_points"] == 4

    async def test_an_entry_beyond_the_bound_is_not_kept(self, clock: Clock) -> None:
        cache = await opened(clock, max_points=2)
        await complete(cache, 1, "a", "b", "c")
        assert await hits(cache, 1) == set()
        assert cache.sizes()["latest_points"] == 0

    async def test_points_are_given_back_however_an_entry_ends(self, clock: Clock) -> None:
        cache = await opened(clock, max_devices=2)
        for device_id in (1, 2, 3):  # 1 is evicted
            await complete(cache, device_id, "a", "b")
        await cache.record(submission(3, 2, "a", "c"), ())
        assert cache.sizes()["latest_points"] == 5
        await cache.drop_latest(3, 1)
        assert cache.sizes()["latest_points"] == 2
        clock.now_s += TTLS.latest_s
        await cache.latest([2])
        assert cache.sizes()["latest_points"] == 0

    async def test_the_dead_do_not_pile_up(self, clock: Clock) -> None:
        cache = await opened(clock)
        for device_id in range(100):
            await complete(cache, device_id)
        clock.now_s += TTLS.latest_s
        for device_id in range(100, 160):
            await complete(cache, device_id)
        assert cache.sizes()["latest"] == 60
        assert cache.counters.evictions == 0

    async def test_guards_that_found_no_room_hold_for_everyone(self, clock: Clock) -> None:
        cache = await opened(clock, max_devices=2)
        for device_id, written_us in ((1, 50), (2, 10), (3, 10), (4, 10), (5, 10)):
            await cache.drop_latest(device_id, written_us)
        for device_id in (1, 9):
            await complete(cache, device_id)
            await cache.record(submission(device_id, 49, "t"), ())
            assert await hits(cache, device_id) == set()
            await complete(cache, device_id)
            await cache.record(submission(device_id, 50, "t"), ())
            assert await hits(cache, device_id) == {device_id}
        clock.now_s += TTLS.drop_guard_s
        await complete(cache, 9)
        await cache.record(submission(9, 49, "t"), ())
        assert await hits(cache, 9) == {9}

    async def test_what_is_answered_does_not_change_afterwards(self, clock: Clock) -> None:
        cache = await opened(clock)
        await complete(cache, 1, "a")
        before = (await cache.latest([1]))[1]
        await cache.record(submission(1, 2, "a", "b"), ())
        assert [point.value for point in before] == [1]


class TestKeyBounds:
    async def test_full_it_gives_up_the_keys_known_longest(self, clock: Clock) -> None:
        cache = await opened(clock, max_keys=2)
        for digest in "abcde":
            await cache.fill_key(digest, KNOWN)
        assert [await cache.key(digest) for digest in "abcde"] == [None, None, *[KNOWN] * 3]
        assert cache.counters.evictions == 2

    async def test_a_storm_of_unknown_keys_pushes_out_nothing_else(self, clock: Clock) -> None:
        cache = await opened(clock, max_keys=10)
        await cache.fill_key("aa", KNOWN)
        await cache.revoke_keys(["bb"])
        for number in range(100):
            await cache.fill_key(str(number), UNKNOWN)
        assert await cache.key("aa") == KNOWN
        assert await cache.key("bb") == UNKNOWN
        assert 10 <= cache.sizes()["unknown_keys"] <= 20

    @pytest.mark.parametrize(
        ("end", "lasts_s"), [("revoke_keys", TTLS.tombstone_s), ("forget_keys", TTLS.forget_s)]
    )
    async def test_with_more_ended_than_fit_no_fill_is_taken_for_a_while(
        self, clock: Clock, end: str, lasts_s: float
    ) -> None:
        cache = await opened(clock, max_keys=2)
        await getattr(cache, end)(["a", "b", "c", "d", "e"])
        assert cache.counters.evictions == 2
        await cache.fill_key("a", KNOWN)
        assert await cache.key("a") is None
        clock.now_s += lasts_s
        await cache.fill_key("a", KNOWN)
        assert await cache.key("a") == KNOWN

    async def test_the_dead_do_not_pile_up(self, clock: Clock) -> None:
        cache = await opened(clock)
        for number in range(100):
            await cache.fill_key(str(number), UNKNOWN)
        for number in range(100, 160):
            clock.now_s += TTLS.unknown_key_s
            await cache.fill_key(str(number), UNKNOWN)
        assert cache.sizes()["unknown_keys"] == 2
        assert cache.counters.evictions == 0

    async def test_hits_and_misses_are_counted(self, clock: Clock) -> None:
        cache = await opened(clock)
        await cache.fill_key("a", KNOWN)
        for digest in ("a", "a", "b"):
            await cache.key(digest)
        await complete(cache, 1)
        await cache.begin_fill([2])
        await cache.latest([1, 2, 3])
        counters = cache.counters
        assert (counters.key_hits, counters.key_misses) == (2, 1)
        assert (counters.latest_hits, counters.latest_misses) == (1, 2)


class TestOtherBounds:
    async def test_online_flags_have_a_bound(self, clock: Clock) -> None:
        cache = await opened(clock, max_devices=2)
        for device_id in (1, 2, 1, 3, 4):
            await cache.mark_online(device_id)
        assert await cache.online([1, 2, 3, 4]) == {1, 3, 4}
        assert cache.counters.evictions == 1

    async def test_logs_have_a_bound_for_each_window(self, clock: Clock) -> None:
        cache = await opened(clock, max_subjects=2)
        for subject in ("a", "b", "a", "c"):
            await cache.log(Hit(subject, 10, 1), 5)
        counts = [(await cache.log(Hit(subject, 10, 0), 5)).count for subject in "abc"]
        assert counts == [2, 0, 1]
        assert cache.counters.evictions == 1

    async def test_dead_logs_do_not_pile_up(self, clock: Clock) -> None:
        cache = await opened(clock)
        for number in range(100):
            await cache.log(Hit(str(number), 10, 1), 5)
        clock.now_s += 5
        await cache.log(Hit("next", 10, 1), 5)
        assert cache.sizes()["logs"] == 101
        clock.now_s += 5
        for number in range(60):
            await cache.log(Hit(f"later{number}", 10, 1), 5)
        assert cache.sizes()["logs"] == 61

    async def test_looking_at_a_log_takes_no_room(self, clock: Clock) -> None:
        cache = await opened(clock)
        await cache.log(Hit("a", 10, 0), 5)
        await cache.log(Hit("b", 10, 1), 5)
        clock.now_s += 10
        await cache.log(Hit("b", 10, 0), 5)
        assert cache.sizes()["logs"] == 0

    async def test_one_subscriber_too_many_is_refused_until_another_leaves(
        self, clock: Clock
    ) -> None:
        cache = await opened(clock, max_subscribers=1)
        async with cache.subscribe("news"):
            with pytest.raises(OverloadedError):
                await cache.subscribe("news").__aenter__()
            assert cache.sizes()["subscribers"] == 1
        async with cache.subscribe("news") as subscription:
            await cache.publish("news", b"1")
            assert (await subscription.next()).payload == b"1"
        assert cache.sizes()["subscribers"] == 0
        assert cache.sizes()["channels"] == 0


class TestLife:
    async def test_closing_ends_subscriptions_once_they_are_read(self, clock: Clock) -> None:
        cache = await opened(clock)
        async with cache.subscribe("news") as subscription:
            await cache.publish("news", b"last")
            await cache.close()
            assert (await subscription.next()).payload == b"last"
            with pytest.raises(StoreUnavailableError):
                await subscription.next()

    async def test_closing_wakes_a_reader(self, clock: Clock) -> None:
        cache = await opened(clock)
        async with cache.subscribe("news") as subscription:
            reader = asyncio.create_task(subscription.next())
            await asyncio.sleep(0)
            await cache.close()
            with pytest.raises(StoreUnavailableError):
                await reader

    async def test_opened_again_it_is_empty(self, clock: Clock) -> None:
        cache = await opened(clock)
        await complete(cache, 1, "a")
        await cache.fill_key("a", KNOWN)
        await cache.record(submission(1, 2, "a"), [Hit("a", 10, 1)])
        await cache.log(Hit("a", 10, 1), 5)
        await cache.close()
        await cache.open()
        assert not any(cache.sizes().values())

    async def test_counts_are_nobody_elses(self, clock: Clock) -> None:
        cache = await opened(clock)
        assert not cache.shares_counts
        assert await cache.count([Hit("a", 10, 1)]) == []
        assert await cache.record(submission(1, 2, "a"), [Hit("a", 10, 1)]) == []


class TestExpiringMap:
    def test_the_dead_go_with_the_first_put_after_one_more_life(self) -> None:
        entries: ExpiringMap[str, int] = ExpiringMap(10, 100)
        for number, key in enumerate("abcd"):
            entries.put(key, number, 0)
        assert entries.put("e", 5, 10) is None
        assert entries.get("a", 10) is None
        assert len(entries) == 5
        assert entries.put("f", 6, 20) is None
        assert len(entries) == 2
        assert entries.get("e", 19.9) == 5

    def test_what_is_put_again_lives_anew_and_longer_than_others(self) -> None:
        entries: ExpiringMap[str, int] = ExpiringMap(10, 2)
        entries.put("a", 1, 0)
        entries.put("b", 2, 1)
        entries.put("a", 3, 2)
        assert entries.put("c", 4, 3) is None
        assert entries.get("b", 3) == 2
        assert entries.put("d", 5, 4) == ([2], 11)
        assert [entries.get(key, 11.9) for key in "abcd"] == [3, None, 4, 5]
        assert entries.get("a", 12) is None

    @given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 3)), max_size=60), st.integers(1, 5))
    def test_it_keeps_the_last_ones_and_never_twice_as_many(
        self, puts: list[tuple[int, float]], most: int
    ) -> None:
        entries: ExpiringMap[int, int] = ExpiringMap(10, most)
        now_s, put_s = 0.0, dict[int, float]()
        for number, (key, pause_s) in enumerate(puts):
            now_s += pause_s
            entries.put(key, number, now_s)
            put_s.pop(key, None)
            put_s[key] = now_s
            assert len(entries) <= 2 * most
            for kept in list(put_s)[-most:]:
                age_s = now_s - put_s[kept]
                assert (entries.get(kept, now_s) is not None) or age_s > 9.8
                assert (entries.get(kept, now_s) is None) or age_s < 10

    def test_what_is_put_together_is_held_once_and_lives_no_longer_for_that(self) -> None:
        def put(step_s: float) -> int:
            entries: ExpiringMap[int, str] = ExpiringMap(10_000, 100_000)
            return memory_of(
                lambda: [entries.put(key, "seen", key * step_s) for key in range(5000)]
            )

        assert put(1e-6) < put(1.0) - 5_000 * 40
        entries: ExpiringMap[int, str] = ExpiringMap(10, 100_000)
        entries.put(1, "seen", 20.0)
        entries.put(2, "seen", 20.09)
        assert entries.get(2, 29.99) == "seen"
        assert entries.get(2, 30.09) is None
        entries.put(1, "a", 40.0)
        entries.put(2, "b", 40.05)
        assert [entries.get(1, 49), entries.get(2, 49)] == ["a", "b"]


class TestLocalCache:
    def test_what_is_dead_makes_room_for_what_is_new(self) -> None:
        clock = Clock()
        cache: LocalCache[int, int] = LocalCache(100_000, 5, clock)
        for key in range(1_000):
            cache.put(key, key)
        for key in range(1_000, 1_500):
            clock.now_s += 5
            cache.put(key, key)
        assert len(cache) == 2
        assert cache.get(1_499) == 1_499
        assert cache.get(0) is None
        assert (cache.hits, cache.misses) == (1, 1)


class TestMemory:
    async def test_a_device_that_has_sent_costs_less_than_200_bytes(self, clock: Clock) -> None:
        cache, devices = await opened(clock), 10_000

        async def send(number: int) -> None:
            clock.now_s += 0.001
            name, prefix = f"bench-{number:05d}", f"iotd_{number:08d}"
            record = KeyRecord(
                number + 1000, prefix, number, 3, name, DeviceStatus.ACTIVE, True, 10**12 + number
            )
            await cache.fill_key(f"{number:064x}", KeyEntry(record))
            await cache.record(submission(number, 1, "t"), ())

        async def send_all() -> None:
            for number in range(1_000, 1_000 + devices):
                await send(number)

        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            await send_all()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (after - before) / devices < 200


class TestNoCache:
    async def test_every_look_up_is_a_miss(self, clock: Clock) -> None:
        cache = NoCache(clock)
        await cache.open()
        await cache.ping()
        await cache.fill_key("a", KNOWN)
        await cache.revoke_keys(["a"])
        await cache.forget_keys(["a"])
        assert await cache.key("a") is None
        generation = (await cache.begin_fill([1]))[1]
        assert not await cache.fill_latest(1, (), generation)
        await cache.record(submission(1, 1, "t"), ())
        await cache.mark_online(1)
        await cache.drop_latest(1, 1)
        assert await cache.latest([1, 2]) == {}
        assert await cache.online([1]) == set()
        counters = cache.counters
        assert (counters.key_hits, counters.key_misses) == (0, 1)
        assert (counters.latest_hits, counters.latest_misses) == (0, 2)
        assert cache.backend == "none"

    async def test_logs_and_messages_go_on_in_process(self, clock: Clock) -> None:
        cache = NoCache(clock)
        await cache.open()
        hit = Hit("ingest:device:1", 10, 2)
        assert not cache.shares_counts
        assert await cache.count([hit]) == []
        assert await cache.record(submission(1, 1, "t"), [hit]) == []
        assert (await cache.log(hit, 5)).count == 2
        await cache.forget_device(1)
        assert (await cache.log(hit, 5)).count == 2
        async with cache.subscribe("news") as subscription:
            await cache.publish("news", b"1")
            assert (await subscription.next()).payload == b"1"
        await cache.close()
        with pytest.raises(StoreUnavailableError):
            await cache.count([hit])
