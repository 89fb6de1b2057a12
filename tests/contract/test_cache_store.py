"""The contract of the cache role, on every adapter (stores/cache/protocol.py)."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from itertools import count
from secrets import randbits, token_hex
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from iotflow.domain.devices import DeviceStatus, KeyRecord
from iotflow.domain.points import LatestPoint, Point, Submission, Value
from iotflow.errors import StoreUnavailableError
from iotflow.stores.breaker import BreakerState
from iotflow.stores.cache.protocol import Hit, KeyEntry, Subscription
from tests.contract.cache_adapters import ADAPTERS, SHARED_ADAPTERS, CacheHarness, Start, until
from tests.contract.latest_model import LatestModel

_device_ids = count(randbits(40) + 1)
_MARGIN_S = 0.05
REFUSED = KeyEntry(None)


@pytest.fixture(params=ADAPTERS)
async def cache(request: pytest.FixtureRequest) -> AsyncGenerator[CacheHarness]:
    start: Start = request.param
    async with start() as harness:
        yield harness


@pytest.fixture
def device() -> int:
    return next(_device_ids)


@pytest.fixture
def digest() -> str:
    return token_hex(32)


@pytest.fixture
def entry(device: int) -> KeyEntry:
    record = KeyRecord(
        key_id=7,
        prefix="iotd_AbCdEfGh",
        device_id=device,
        user_id=3,
        name="boiler",
        status=DeviceStatus.MAINTENANCE,
        active=True,
        created_ms=1_767_225_600_000,
        expires_ms=4_102_444_800_000,
    )
    return KeyEntry(record)


def submission(device_id: int, written_us: int, **values: tuple[int, Value]) -> Submission:
    """Points by measurement, each a timestamp and a value."""
    points = tuple(Point(at_ms, name, value, "C") for name, (at_ms, value) in values.items())
    return Submission(device_id, 1, points, written_us)


def stored(written_us: int, **values: tuple[int, Value]) -> list[LatestPoint]:
    """What a store would answer."""
    return [LatestPoint(at, name, value, "C", written_us) for name, (at, value) in values.items()]


async def complete(cache: CacheHarness, device_id: int, points: Sequence[LatestPoint] = ()) -> None:
    generation = (await cache.store.begin_fill([device_id]))[device_id]
    assert await cache.store.fill_latest(device_id, points, generation)


async def answer(cache: CacheHarness, device_id: int) -> dict[str, Value] | None:
    """Values by measurement, None for a miss."""
    found = (await cache.store.latest([device_id])).get(device_id)
    return None if found is None else {point.measurement: point.value for point in found}


async def begin_bucket(cache: CacheHarness) -> None:
    """Wait for a window to begin, so that a test's calls fall into one."""
    await cache.advance(-cache.now() % cache.window_s + _MARGIN_S)


class TestLifecycle:
    async def test_ping_answers(self, cache: CacheHarness) -> None:
        await cache.store.ping()
        assert cache.store.breaker_state is BreakerState.CLOSED

    async def test_backend_is_named(self, cache: CacheHarness) -> None:
        assert cache.store.backend

    async def test_nothing_works_before_it_is_opened(
        self, cache: CacheHarness, device: int, digest: str, entry: KeyEntry
    ) -> None:
        store = cache.unopened()
        hit = Hit(digest, 10, 1)
        calls: list[Any] = [
            store.ping(),
            store.key(digest),
            store.fill_key(digest, entry),
            store.revoke_keys([digest]),
            store.forget_keys([digest]),
            store.latest([device]),
            store.begin_fill([device]),
            store.fill_latest(device, (), 1),
            store.drop_latest(device, 1),
            store.record(submission(device, 1, t=(1, 1)), ()),
            store.mark_online(device),
            store.online([device]),
            store.forget_device(device),
            store.count([hit]),
            store.log(hit, 1),
            store.publish(digest, b""),
            store.subscribe(digest).__aenter__(),
        ]
        for call in calls:
            with pytest.raises(StoreUnavailableError):
                await call

    async def test_closed_it_is_unavailable(self, cache: CacheHarness, device: int) -> None:
        store = cache.unopened()
        await store.open()
        await store.ping()
        await store.close()
        with pytest.raises(StoreUnavailableError):
            await store.latest([device])


class TestKeys:
    async def test_nothing_is_known_at_first(self, cache: CacheHarness, digest: str) -> None:
        assert await cache.store.key(digest) is None

    async def test_a_filled_record_comes_back_whole(
        self, cache: CacheHarness, digest: str, entry: KeyEntry
    ) -> None:
        await cache.store.fill_key(digest, entry)
        assert await cache.store.key(digest) == entry

    async def test_a_record_lives_its_time(
        self, cache: CacheHarness, digest: str, entry: KeyEntry
    ) -> None:
        await cache.store.fill_key(digest, entry)
        await cache.advance(cache.ttls.key_s / 2)
        assert await cache.store.key(digest) == entry
        await cache.advance(cache.ttls.key_s / 2 + _MARGIN_S)
        assert await cache.store.key(digest) is None

    async def test_in_process_it_tells_at_once_what_it_knows(
        self, cache: CacheHarness, digest: str, entry: KeyEntry
    ) -> None:
        store = cache.store
        assert store.key_at_once(digest) is None
        await store.fill_key(digest, entry)
        assert store.key_at_once(digest) == (entry if store.is_in_process else None)
        await store.revoke_keys([digest])
        assert store.key_at_once(digest) == (REFUSED if store.is_in_process else None)
        await store.close()
        assert store.key_at_once(digest) is None
        await store.open()

    async def test_an_unknown_key_is_remembered_briefly(
        self, cache: CacheHarness, digest: str, entry: KeyEntry
    ) -> None:
        await cache.store.fill_key(digest, REFUSED)
        assert await cache.store.key(digest) == REFUSED
        await cache.advance(cache.ttls.unknown_key_s + _MARGIN_S)
        assert await cache.store.key(digest) is None
        await cache.store.fill_key(digest, entry)
        assert await cache.store.key(digest) == entry

    @pytest.mark.parametrize("first_is_known", [True, False])
    async def test_a_fill_does_not_overwrite(
        self, cache: CacheHarness, digest: str, entry: KeyEntry, first_is_known: bool
    ) -> None:
        first, second = (entry, REFUSED) if first_is_known else (REFUSED, entry)
        await cache.store.fill_key(digest, first)
        await cache.store.fill_key(digest, second)
        assert await cache.store.key(digest) == first

    async def test_a_record_is_not_replaced_nor_its_life_made_longer(
        self, cache: CacheHarness, digest: str, entry: KeyEntry
    ) -> None:
        assert entry.record is not None
        other = KeyEntry(replace(entry.record, name="renamed"))
        await cache.store.fill_key(digest, entry)
        await cache.advance(cache.ttls.key_s * 0.6)
        await cache.store.fill_key(digest, other)
        assert await cache.store.key(digest) == entry
        await cache.advance(cache.ttls.key_s * 0.4 + _MARGIN_S)
        assert await cache.store.key(digest) is None

    @pytest.mark.parametrize("before", ["nothing", "a record", "an unknown key", "a forgotten key"])
    async def test_a_revoked_key_is_refused_whatever_was_there(
        self, cache: CacheHarness, digest: str, entry: KeyEntry, before: str
    ) -> None:
        if before != "nothing":
            await cache.store.fill_key(digest, REFUSED if before == "an unknown key" else entry)
        if before == "a forgotten key":
            await cache.store.forget_keys([digest])
        await cache.store.revoke_keys([digest])
        assert await cache.store.key(digest) == REFUSED

    async def test_a_fill_racing_a_revocation_is_thrown_away(
        self, cache: CacheHarness, digest: str, entry: KeyEntry
    ) -> None:
        assert await cache.store.key(digest) is None  # the look-up asks the registry ...
        await cache.store.revoke_keys([digest])
        await cache.store.fill_key(digest, entry)  # ... and comes back with what it was
        assert await cache.store.key(digest) == REFUSED

    async def test_a_tombstone_stands_until_no_fill_can_be_under_way(
        self, cache: CacheHarness, digest: str, entry: KeyEntry
    ) -> None:
        await cache.store.revoke_keys([digest])
        await cache.advance(cache.ttls.tombstone_s * 0.6)
        await cache.store.fill_key(digest, entry)
        assert await cache.store.key(digest) == REFUSED
        await cache.advance(cache.ttls.tombstone_s * 0.4 + _MARGIN_S)
        assert await cache.store.key(digest) is None

    async def test_forgetting_leaves_tombstones(
        self, cache: CacheHarness, digest: str, entry: KeyEntry
    ) -> None:
        await cache.store.revoke_keys([digest])
        await cache.store.forget_keys([digest])
        assert await cache.store.key(digest) == REFUSED
        await cache.store.fill_key(digest, entry)
        assert await cache.store.key(digest) == REFUSED

    @pytest.mark.parametrize("known", [True, False])
    async def test_a_forgotten_key_is_looked_up_again(
        self, cache: CacheHarness, digest: str, entry: KeyEntry, known: bool
    ) -> None:
        await cache.store.fill_key(digest, entry if known else REFUSED)
        await cache.store.forget_keys([digest])
        assert await cache.store.key(digest) is None

    async def test_a_fill_racing_a_forgetting_is_thrown_away(
        self, cache: CacheHarness, digest: str, entry: KeyEntry
    ) -> None:
        await cache.store.forget_keys([digest])
        await cache.store.fill_key(digest, entry)  # read before the record changed
        assert await cache.store.key(digest) is None
        await cache.advance(cache.ttls.forget_s + _MARGIN_S)
        await cache.store.fill_key(digest, entry)
        assert await cache.store.key(digest) == entry

    async def test_revoking_and_forgetting_touch_no_other_key(
        self, cache: CacheHarness, digest: str, entry: KeyEntry
    ) -> None:
        await cache.store.fill_key(digest, entry)
        await cache.store.revoke_keys([token_hex(32), token_hex(32)])
        await cache.store.forget_keys([token_hex(32)])
        assert await cache.store.key(digest) == entry


class TestLatest:
    async def test_what_was_only_recorded_is_no_hit(self, cache: CacheHarness, device: int) -> None:
        await cache.store.record(submission(device, 1, t=(1, 1.5)), ())
        assert await answer(cache, device) is None

    async def test_a_fill_that_has_only_begun_makes_no_hit(
        self, cache: CacheHarness, device: int
    ) -> None:
        await cache.store.begin_fill([device])
        assert await answer(cache, device) is None
        await cache.store.record(submission(device, 1, t=(1, 1.5)), ())
        assert await answer(cache, device) is None

    async def test_a_filled_entry_comes_back_exactly_and_sorted(
        self, cache: CacheHarness, device: int
    ) -> None:
        points = [
            LatestPoint(1_700_000_000_123, "z", 0.1, "m/s", 1_700_000_000_000_001),
            LatestPoint(0, "whole", 2**63 - 1, "", 2),
            LatestPoint(5, "least", -(2**63), "", 3),
            LatestPoint(5, "float", 3.0, "", 3),
            LatestPoint(5, "on", True, "", 4),
            LatestPoint(5, "off", False, "", 4),
            LatestPoint(5, "text", "grün \0 {}", "°C", 5),
            LatestPoint(5, "ä", 1e308, "", 6),
        ]
        await complete(cache, device, points)
        found = (await cache.store.latest([device]))[device]
        assert list(found) == sorted(points, key=lambda point: point.measurement)
        assert [type(point.value) for point in found] == [
            type(point.value) for point in sorted(points, key=lambda point: point.measurement)
        ]

    async def test_recorded_values_come_back_exactly(
        self, cache: CacheHarness, device: int
    ) -> None:
        await complete(cache, device)
        values: list[Value] = [0.1, 3.0, 2**63 - 1, -(2**63), True, False, "", "°"]
        points = tuple(Point(10, f"m{index}", value, "u") for index, value in enumerate(values))
        await cache.store.record(Submission(device, 1, points, 1_700_000_000_000_001), ())
        found = (await cache.store.latest([device]))[device]
        assert [(type(point.value), point.value) for point in found] == [
            (type(value), value) for value in values
        ]
        assert {(point.unit, point.written_us) for point in found} == {("u", 1_700_000_000_000_001)}

    async def test_no_points_make_a_complete_empty_entry(
        self, cache: CacheHarness, device: int
    ) -> None:
        await complete(cache, device)
        assert await answer(cache, device) == {}

    async def test_of_many_devices_the_complete_ones_answer(self, cache: CacheHarness) -> None:
        filled, empty, begun, unheard = (next(_device_ids) for _ in range(4))
        await complete(cache, filled, stored(1, t=(1, 1.5)))
        await complete(cache, empty)
        await cache.store.begin_fill([begun])
        found = await cache.store.latest([filled, empty, begun, unheard])
        assert {device: list(points) for device, points in found.items()} == {
            filled: stored(1, t=(1, 1.5)),
            empty: [],
        }
        assert await cache.store.latest([]) == {}

    async def test_a_submission_updates_a_complete_entry(
        self, cache: CacheHarness, device: int
    ) -> None:
        await complete(cache, device, stored(1, b=(10, "old"), c=(10, "kept")))
        assert await answer(cache, device) == {"b": "old", "c": "kept"}
        await cache.store.record(submission(device, 2, b=(11, "new"), a=(5, "first")), ())
        assert await answer(cache, device) == {"a": "first", "b": "new", "c": "kept"}

    async def test_late_data_changes_nothing(self, cache: CacheHarness, device: int) -> None:
        await complete(cache, device, stored(1, t=(10, "newest")))
        await cache.store.record(submission(device, 2, t=(9, "late")), ())
        assert await answer(cache, device) == {"t": "newest"}

    @pytest.mark.parametrize("marks", [(1, 2), (2, 1)])
    async def test_at_one_timestamp_the_later_write_stays(
        self, cache: CacheHarness, device: int, marks: tuple[int, int]
    ) -> None:
        await complete(cache, device)
        # Marks of real size: two that differ in the last digit must differ in the cache too.
        for mark in marks:
            written_us = 1_700_000_000_000_000 + mark
            await cache.store.record(submission(device, written_us, t=(10, mark)), ())
        assert await answer(cache, device) == {"t": 2}

    @pytest.mark.parametrize("times", [(1, 2), (2, 1)])
    async def test_event_time_goes_before_the_order_of_writing(
        self, cache: CacheHarness, device: int, times: tuple[int, int]
    ) -> None:
        await complete(cache, device)
        for mark, at_ms in enumerate(times, start=1):
            at_ms += 1_700_000_000_000
            await cache.store.record(submission(device, mark, t=(at_ms, times[mark - 1])), ())
        assert await answer(cache, device) == {"t": 2}

    async def test_of_several_times_in_a_submission_the_newest_stays(
        self, cache: CacheHarness, device: int
    ) -> None:
        await complete(cache, device)
        points = tuple(Point(at_ms, "t", at_ms) for at_ms in (5, 9, 7))
        await cache.store.record(Submission(device, 1, points, 1), ())
        assert await answer(cache, device) == {"t": 9}

    async def test_a_device_may_have_very_many_measurements(
        self, cache: CacheHarness, device: int
    ) -> None:
        # As many names as a device may have; more points than a call to a script may have words.
        names = [f"m{number:04}" for number in range(1_024)]
        await complete(cache, device, [LatestPoint(5, name, "old", "", 1) for name in names])
        points = [Point(at_ms, name, at_ms) for name in names for at_ms in (4, 6, 3, 5)]
        await cache.store.record(Submission(device, 1, tuple(points), 2), ())
        assert await answer(cache, device) == dict.fromkeys(names, 6)

    async def test_recording_twice_is_harmless(self, cache: CacheHarness, device: int) -> None:
        await complete(cache, device)
        for _ in range(2):
            await cache.store.record(submission(device, 1, t=(1, 1.5)), ())
        assert await answer(cache, device) == {"t": 1.5}

    async def test_a_type_changes_whole(self, cache: CacheHarness, device: int) -> None:
        await complete(cache, device, [LatestPoint(10, "t", 21.5, "C", 1)])
        await cache.store.record(Submission(device, 1, (Point(11, "t", "hot"),), 2), ())
        found = (await cache.store.latest([device]))[device]
        assert list(found) == [LatestPoint(11, "t", "hot", "", 2)]

    async def test_devices_are_apart(self, cache: CacheHarness, device: int) -> None:
        other = next(_device_ids)
        await complete(cache, device, stored(1, t=(1, 1)))
        await complete(cache, other, stored(1, t=(1, 2)))
        await cache.store.record(submission(other, 2, t=(2, 3)), ())
        await cache.store.drop_latest(other, 3)
        assert await answer(cache, device) == {"t": 1}


class TestFills:
    @pytest.mark.parametrize(
        ("read", "recorded", "expected"),
        [((10, "store"), (11, "new"), "new"), ((10, "store"), (9, "late"), "store")],
    )
    async def test_a_fill_racing_a_submission_keeps_the_newer(
        self,
        cache: CacheHarness,
        device: int,
        read: tuple[int, Value],
        recorded: tuple[int, Value],
        expected: Value,
    ) -> None:
        generation = (await cache.store.begin_fill([device]))[device]
        await cache.store.record(submission(device, 2, t=recorded, u=(1, "other")), ())
        assert await cache.store.fill_latest(device, stored(1, t=read), generation)
        assert await answer(cache, device) == {"t": expected, "u": "other"}

    async def test_at_one_timestamp_a_fill_does_not_undo_the_later_write(
        self, cache: CacheHarness, device: int
    ) -> None:
        generation = (await cache.store.begin_fill([device]))[device]
        await cache.store.record(submission(device, 2, t=(10, "later")), ())
        await cache.store.fill_latest(device, stored(1, t=(10, "earlier")), generation)
        assert await answer(cache, device) == {"t": "later"}

    async def test_a_fill_racing_a_drop_is_thrown_away(
        self, cache: CacheHarness, device: int
    ) -> None:
        generation = (await cache.store.begin_fill([device]))[device]
        await cache.store.drop_latest(device, 2)
        assert not await cache.store.fill_latest(device, stored(1, t=(1, "gone")), generation)
        assert await answer(cache, device) is None

    async def test_a_fill_begun_after_a_drop_does_not_let_in_one_begun_before(
        self, cache: CacheHarness, device: int
    ) -> None:
        before = (await cache.store.begin_fill([device]))[device]
        await cache.store.drop_latest(device, 2)
        after = (await cache.store.begin_fill([device]))[device]
        assert not await cache.store.fill_latest(device, stored(1, t=(1, "gone")), before)
        assert await answer(cache, device) is None
        assert await cache.store.fill_latest(device, (), after)
        assert not await cache.store.fill_latest(device, stored(1, t=(1, "gone")), before)
        assert await answer(cache, device) == {}

    async def test_a_drop_of_a_complete_entry_raises_its_generation(
        self, cache: CacheHarness, device: int
    ) -> None:
        await complete(cache, device, stored(1, t=(1, "gone")))
        generation = (await cache.store.begin_fill([device]))[device]
        await cache.store.drop_latest(device, 2)
        assert await answer(cache, device) is None
        assert not await cache.store.fill_latest(device, stored(1, t=(1, "gone")), generation)

    async def test_fills_without_a_drop_between_them_all_count(
        self, cache: CacheHarness, device: int
    ) -> None:
        first = (await cache.store.begin_fill([device]))[device]
        second = (await cache.store.begin_fill([device]))[device]
        assert await cache.store.fill_latest(device, stored(2, t=(2, "new")), second)
        assert await cache.store.fill_latest(device, stored(1, t=(1, "old")), first)
        assert await answer(cache, device) == {"t": "new"}

    async def test_beginning_a_fill_leaves_a_complete_entry(
        self, cache: CacheHarness, device: int
    ) -> None:
        await complete(cache, device, stored(1, t=(1, 1)))
        await cache.store.begin_fill([device])
        assert await answer(cache, device) == {"t": 1}

    async def test_each_device_has_its_own_generation(
        self, cache: CacheHarness, device: int
    ) -> None:
        other = next(_device_ids)
        generations = await cache.store.begin_fill([device, other])
        assert set(generations) == {device, other}
        await cache.store.drop_latest(other, 1)
        assert await cache.store.fill_latest(device, (), generations[device])
        assert not await cache.store.fill_latest(other, (), generations[other])

    async def test_a_fill_whose_entry_was_evicted_is_thrown_away(
        self, cache: CacheHarness, device: int
    ) -> None:
        generation = (await cache.store.begin_fill([device]))[device]
        await cache.store.record(submission(device, 2, t=(2, "lost with the entry")), ())
        await cache.evict_latest(device)
        assert not await cache.store.fill_latest(device, stored(1, t=(1, "old")), generation)
        assert await answer(cache, device) is None

    async def test_an_evicted_entry_that_is_made_again_takes_no_older_fill(
        self, cache: CacheHarness, device: int
    ) -> None:
        generation = (await cache.store.begin_fill([device]))[device]
        await cache.store.record(submission(device, 2, t=(2, "lost with the entry")), ())
        await cache.evict_latest(device)
        again = (await cache.store.begin_fill([device]))[device]
        assert not await cache.store.fill_latest(device, stored(1, t=(1, "old")), generation)
        assert await cache.store.fill_latest(device, stored(2, t=(2, "true")), again)
        assert await answer(cache, device) == {"t": "true"}

    async def test_an_eviction_does_not_undo_a_drop(self, cache: CacheHarness, device: int) -> None:
        generation = (await cache.store.begin_fill([device]))[device]
        await cache.store.drop_latest(device, 2)
        await cache.evict_latest(device)
        await cache.store.begin_fill([device])
        assert not await cache.store.fill_latest(device, stored(1, t=(1, "gone")), generation)

    async def test_an_evicted_complete_entry_is_a_miss(
        self, cache: CacheHarness, device: int
    ) -> None:
        await complete(cache, device, stored(1, t=(1, 1)))
        await cache.evict_latest(device)
        await cache.store.record(submission(device, 2, u=(1, 2)), ())
        assert await answer(cache, device) is None

    async def test_a_fill_whose_entry_expired_is_thrown_away(
        self, cache: CacheHarness, device: int
    ) -> None:
        generation = (await cache.store.begin_fill([device]))[device]
        await cache.store.record(submission(device, 2, t=(2, "lost with the entry")), ())
        await cache.advance(cache.ttls.latest_s + _MARGIN_S)
        assert not await cache.store.fill_latest(device, stored(1, t=(1, "old")), generation)
        assert await answer(cache, device) is None


class TestDropGuard:
    async def test_what_was_written_before_the_drop_does_not_enter_after_it(
        self, cache: CacheHarness, device: int
    ) -> None:
        await cache.store.drop_latest(device, 5)
        await complete(cache, device)
        await cache.store.record(submission(device, 4, t=(1, "deleted")), ())
        assert await answer(cache, device) in (None, {})

    async def test_a_refused_record_voids_a_fill_that_may_have_missed_it(
        self, cache: CacheHarness, device: int
    ) -> None:
        # Outside of the deleted range the store holds it, but this fill has read before.
        await cache.store.drop_latest(device, 5)
        generation = (await cache.store.begin_fill([device]))[device]
        await cache.store.record(submission(device, 4, t=(1, "missed")), ())
        await cache.store.fill_latest(device, (), generation)
        assert await answer(cache, device) is None

    async def test_a_refused_record_ends_a_complete_entry_that_lacks_it(
        self, cache: CacheHarness, device: int
    ) -> None:
        await cache.store.drop_latest(device, 5)
        await complete(cache, device, stored(6, t=(2, "newer")))
        await cache.store.record(submission(device, 4, u=(1, "missed")), ())
        assert await answer(cache, device) is None
        await complete(cache, device, stored(6, t=(2, "newer"), u=(1, "missed")))
        assert await answer(cache, device) == {"t": "newer", "u": "missed"}

    @pytest.mark.parametrize("written_us", [1_700_000_000_000_005, 1_700_000_000_000_006])
    async def test_what_was_written_after_the_drop_enters(
        self, cache: CacheHarness, device: int, written_us: int
    ) -> None:
        await cache.store.drop_latest(device, 1_700_000_000_000_005)
        await complete(cache, device)
        await cache.store.record(submission(device, written_us, t=(1, 1)), ())
        assert await answer(cache, device) == {"t": 1}

    async def test_of_several_drops_the_highest_guards(
        self, cache: CacheHarness, device: int
    ) -> None:
        for mark in (3, 5, 4):
            await cache.store.drop_latest(device, 1_700_000_000_000_000 + mark)
        await complete(cache, device)
        await cache.store.record(submission(device, 1_700_000_000_000_004, t=(1, 1)), ())
        assert await answer(cache, device) is None

    async def test_the_guard_outlives_the_eviction_of_the_entry(
        self, cache: CacheHarness, device: int
    ) -> None:
        await cache.store.drop_latest(device, 5)
        await cache.store.begin_fill([device])
        await cache.evict_latest(device)
        await complete(cache, device)
        await cache.store.record(submission(device, 4, t=(1, "deleted")), ())
        assert await answer(cache, device) is None

    async def test_the_guard_ends(self, cache: CacheHarness, device: int) -> None:
        await cache.store.drop_latest(device, 5)
        await cache.advance(cache.ttls.drop_guard_s * 0.6)
        await complete(cache, device)
        await cache.store.record(submission(device, 4, t=(1, 1)), ())
        assert await answer(cache, device) is None
        await cache.advance(cache.ttls.drop_guard_s * 0.4 + _MARGIN_S)
        await complete(cache, device)
        await cache.store.record(submission(device, 4, t=(1, 1)), ())
        assert await answer(cache, device) == {"t": 1}


class TestExpiry:
    async def test_an_entry_lives_its_time_whoever_reads_it(
        self, cache: CacheHarness, device: int
    ) -> None:
        await complete(cache, device)
        await cache.advance(cache.ttls.latest_s * 0.6)
        assert await answer(cache, device) == {}
        await cache.advance(cache.ttls.latest_s * 0.4 + _MARGIN_S)
        assert await answer(cache, device) is None

    async def test_a_submission_begins_its_time_anew(
        self, cache: CacheHarness, device: int
    ) -> None:
        await complete(cache, device)
        await cache.advance(cache.ttls.latest_s * 0.6)
        await cache.store.record(submission(device, 1, t=(1, 1)), ())
        await cache.advance(cache.ttls.latest_s * 0.6)
        assert await answer(cache, device) == {"t": 1}

    async def test_however_busy_a_device_is_its_entry_is_read_anew_in_the_end(
        self, cache: CacheHarness, device: int
    ) -> None:
        step_s = cache.ttls.latest_s * 0.6
        await complete(cache, device)
        for mark in range(1, int(cache.ttls.latest_max_s / step_s) + 2):
            await cache.store.record(submission(device, mark, t=(mark, mark)), ())
            await cache.advance(step_s)
        assert await answer(cache, device) is None

    async def test_what_expired_is_not_brought_back_by_a_submission(
        self, cache: CacheHarness, device: int
    ) -> None:
        await complete(cache, device, stored(1, t=(1, 1)))
        await cache.advance(cache.ttls.latest_s + _MARGIN_S)
        await cache.store.record(submission(device, 2, t=(2, 2)), ())
        assert await answer(cache, device) is None


class TestOrders:
    """Any order of everything that replicas do."""

    points = st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from("abc")), min_size=1, max_size=4, unique=True
    )
    names = st.sampled_from(
        ["submit", "store", "record", "ask_delete", "delete", "drop", "begin", "read", "fill"] * 3
        + ["evict", "wait"]
    )
    steps = st.lists(st.tuples(names, st.integers(0, 9), points), min_size=8, max_size=60)

    @settings(
        max_examples=400,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(steps=steps, shadows=st.booleans())
    async def test_whatever_the_order_an_answer_is_the_truth(
        self,
        cache: CacheHarness,
        steps: list[tuple[str, int, list[tuple[int, str]]]],
        shadows: bool,
    ) -> None:
        model = LatestModel(cache, next(_device_ids), shadows)
        for step in steps:
            await model.step(*step)
            await model.check()
        await model.finish()
        await model.check()

    @settings(
        max_examples=100,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        batches=st.lists(points, min_size=1, max_size=8).flatmap(
            lambda batches: st.permutations(list(enumerate(batches, start=1)))
        )
    )
    async def test_two_replicas_may_record_in_any_order(
        self, cache: CacheHarness, batches: list[tuple[int, list[tuple[int, str]]]]
    ) -> None:
        newest: dict[str, tuple[int, int]] = {}
        for mark, points in batches:
            for at_ms, name in points:
                newest[name] = max(newest.get(name, (-1, -1)), (at_ms, mark))
        found = None
        for _ in range(3):  # a miss is no wrong answer: on a busy machine an entry may expire
            found = found or await self.recorded(cache, batches)
        assert found == {name: mark for name, (_, mark) in newest.items()}

    @staticmethod
    async def recorded(
        cache: CacheHarness, batches: list[tuple[int, list[tuple[int, str]]]]
    ) -> dict[str, Value] | None:
        """What the cache then knows of a new device."""
        device = next(_device_ids)
        await complete(cache, device)
        for mark, points in batches:
            made = tuple(Point(at_ms, name, mark) for at_ms, name in points)
            await cache.store.record(Submission(device, 1, made, mark), ())
        return await answer(cache, device)


class TestOnline:
    async def test_a_submission_or_a_heartbeat_makes_a_device_online(
        self, cache: CacheHarness, device: int
    ) -> None:
        beating, silent = next(_device_ids), next(_device_ids)
        await cache.store.record(submission(device, 1, t=(1, 1)), ())
        await cache.store.mark_online(beating)
        assert await cache.store.online([device, beating, silent]) == {device, beating}
        assert await cache.store.online([]) == set()

    async def test_the_flag_lives_from_the_last_sign(
        self, cache: CacheHarness, device: int
    ) -> None:
        await cache.store.mark_online(device)
        await cache.advance(cache.ttls.online_s * 0.6)
        await cache.store.record(submission(device, 1, t=(1, 1)), ())
        await cache.advance(cache.ttls.online_s * 0.6)
        assert await cache.store.online([device]) == {device}
        await cache.advance(cache.ttls.online_s * 0.4 + _MARGIN_S)
        assert await cache.store.online([device]) == set()

    async def test_a_refused_record_is_a_sign_of_life(
        self, cache: CacheHarness, device: int
    ) -> None:
        await cache.store.drop_latest(device, 5)
        await cache.store.record(submission(device, 4, t=(1, 1)), ())
        assert await cache.store.online([device]) == {device}


class TestForgetDevice:
    async def test_nothing_of_it_is_left(self, cache: CacheHarness, device: int) -> None:
        subject, window_s = f"ingest:device:{device}", cache.window_s
        await complete(cache, device, stored(1, t=(1, 1)))
        await cache.store.record(submission(device, 2, t=(1, 1)), ())
        await cache.store.log(Hit(subject, window_s, 1), 10)
        await cache.store.forget_device(device)
        assert await answer(cache, device) is None
        assert await cache.store.online([device]) == set()
        assert (await cache.store.log(Hit(subject, window_s, 0), 10)).count == 0

    async def test_a_fill_that_was_under_way_is_thrown_away(
        self, cache: CacheHarness, device: int
    ) -> None:
        generation = (await cache.store.begin_fill([device]))[device]
        await cache.store.forget_device(device)
        assert not await cache.store.fill_latest(device, stored(1, t=(1, 1)), generation)
        assert await answer(cache, device) is None

    async def test_others_stay(self, cache: CacheHarness, device: int) -> None:
        # Ids of which one is the end or the beginning of the other.
        for other in (int(f"{device}1"), int(f"1{device}")):
            await complete(cache, other)
            await cache.store.record(submission(other, 1, t=(1, 1)), ())
            await cache.store.forget_device(device)
            assert await answer(cache, other) == {"t": 1}
            assert await cache.store.online([other]) == {other}


class TestWindows:
    @pytest.fixture(params=SHARED_ADAPTERS)
    async def cache(self, request: pytest.FixtureRequest) -> AsyncGenerator[CacheHarness]:
        start: Start = request.param
        async with start() as harness:
            assert harness.store.shares_counts
            yield harness

    async def test_costs_add_up_by_subject_and_window(
        self, cache: CacheHarness, digest: str
    ) -> None:
        short, long = cache.window_s, cache.window_s * 4
        hits = [
            Hit(f"a{digest}", short, 2),
            Hit(f"b{digest}", short, 3),
            Hit(f"a{digest}", long, 5),
        ]
        await begin_bucket(cache)
        first = await cache.store.count(hits)
        second = await cache.store.count(hits[::-1])
        assert [counted.current for counted in first] == [2, 3, 5]
        assert [counted.current for counted in second] == [10, 6, 4]
        assert await cache.store.count([]) == []

    async def test_record_counts_as_count_does(
        self, cache: CacheHarness, device: int, digest: str
    ) -> None:
        hits = [Hit(f"a{digest}", cache.window_s, 1), Hit(f"b{digest}", cache.window_s, 100)]
        await begin_bucket(cache)
        await cache.store.count(hits)
        counted = await cache.store.record(submission(device, 1, t=(1, 1)), hits)
        assert [count.current for count in counted] == [2, 200]

    async def test_a_record_may_count_for_the_device_and_for_others(
        self, cache: CacheHarness, device: int, digest: str
    ) -> None:
        window_s = cache.window_s
        own, others = f"x:device:{device}", f"x:device:1{device}"
        hits = [Hit(own, window_s, 1), Hit(digest, window_s, 2), Hit(others, window_s, 3)]
        hits += [Hit(own, window_s * 4, 4), Hit(own, window_s, 5)]
        await begin_bucket(cache)
        for times in (1, 2):
            counted = await cache.store.record(submission(device, times, t=(1, 1)), hits)
            before = (times - 1) * 6
            assert [count.current for count in counted] == [
                before + 1,
                times * 2,
                times * 3,
                times * 4,
                before + 6,
            ]

    async def test_buckets_begin_with_the_clock(self, cache: CacheHarness, digest: str) -> None:
        await begin_bucket(cache)
        await cache.advance(cache.window_s / 4)
        (counted,) = await cache.store.count([Hit(digest, cache.window_s, 1)])
        assert counted.elapsed_s == pytest.approx(cache.window_s / 4, abs=0.2)

    async def test_the_bucket_before_weighs_what_the_window_still_covers(
        self, cache: CacheHarness, digest: str
    ) -> None:
        window_s = cache.window_s
        await begin_bucket(cache)
        await cache.store.count([Hit(digest, window_s, 8)])
        await cache.advance(window_s * 1.5)
        (counted,) = await cache.store.count([Hit(digest, window_s, 1)])
        assert (counted.previous, counted.current) == (8, 1)
        assert counted.used(window_s) == pytest.approx(5, abs=1)

    async def test_after_two_windows_nothing_is_left(
        self, cache: CacheHarness, digest: str
    ) -> None:
        await begin_bucket(cache)
        await cache.store.count([Hit(digest, cache.window_s, 8)])
        await cache.advance(cache.window_s * 2)
        (counted,) = await cache.store.count([Hit(digest, cache.window_s, 1)])
        assert (counted.previous, counted.current) == (0, 1)

    async def test_a_cost_of_nothing_only_looks(self, cache: CacheHarness, digest: str) -> None:
        await begin_bucket(cache)
        await cache.store.count([Hit(digest, cache.window_s, 3)])
        for _ in range(2):
            (counted,) = await cache.store.count([Hit(digest, cache.window_s, 0)])
        assert counted.current == 3

    async def test_nothing_of_a_forgotten_device_is_left(
        self, cache: CacheHarness, device: int
    ) -> None:
        hit = Hit(f"ingest:device:{device}", cache.window_s, 5)
        await cache.store.record(submission(device, 2, t=(1, 1)), [hit])
        await cache.store.forget_device(device)
        (counted,) = await cache.store.count([replace(hit, cost=1)])
        assert counted.previous + counted.current == 1

    async def test_others_than_the_forgotten_device_stay(
        self, cache: CacheHarness, device: int
    ) -> None:
        # Ids of which one is the end or the beginning of the other.
        for other in (int(f"{device}1"), int(f"1{device}")):
            hit = Hit(f"ingest:device:{other}", cache.window_s, 5)
            await begin_bucket(cache)
            await cache.store.record(submission(other, 1, t=(1, 1)), [hit])
            await cache.store.forget_device(device)
            (counted,) = await cache.store.count([replace(hit, cost=0)])
            assert counted.current == 5


class TestLog:
    async def test_it_counts_exactly_up_to_the_limit(
        self, cache: CacheHarness, digest: str
    ) -> None:
        hit = Hit(digest, cache.window_s, 1)
        assert [(await cache.store.log(hit, 3)).count for _ in range(5)] == [1, 2, 3, 3, 3]

    async def test_a_cost_of_nothing_only_looks(self, cache: CacheHarness, digest: str) -> None:
        look = Hit(digest, cache.window_s, 0)
        assert await cache.store.log(look, 3) == await cache.store.log(look, 3)
        assert (await cache.store.log(look, 3)).oldest_leaves_in_s == 0
        await cache.store.log(Hit(digest, cache.window_s, 1), 3)
        assert (await cache.store.log(look, 3)).count == 1
        assert (await cache.store.log(look, 3)).count == 1

    async def test_a_cost_is_as_many_entries_as_have_room(
        self, cache: CacheHarness, digest: str
    ) -> None:
        assert (await cache.store.log(Hit(digest, cache.window_s, 2), 3)).count == 2
        assert (await cache.store.log(Hit(digest, cache.window_s, 2), 3)).count == 3

    async def test_each_entry_leaves_when_its_window_is_over(
        self, cache: CacheHarness, digest: str
    ) -> None:
        window_s = cache.window_s
        hit, look = Hit(digest, window_s, 1), Hit(digest, window_s, 0)
        await cache.store.log(hit, 3)
        await cache.advance(window_s / 2)
        logged = await cache.store.log(hit, 3)
        assert logged.count == 2
        assert logged.oldest_leaves_in_s == pytest.approx(window_s / 2, abs=0.2)
        await cache.advance(window_s / 2 + _MARGIN_S)
        assert (await cache.store.log(look, 3)).count == 1
        await cache.advance(window_s / 2 + _MARGIN_S)
        assert (await cache.store.log(look, 3)).count == 0

    async def test_what_found_no_room_does_not_lengthen_the_wait(
        self, cache: CacheHarness, digest: str
    ) -> None:
        hit = Hit(digest, cache.window_s, 1)
        await cache.store.log(hit, 1)
        await cache.advance(cache.window_s / 2)
        await cache.store.log(hit, 1)
        await cache.advance(cache.window_s / 2 + _MARGIN_S)
        assert (await cache.store.log(Hit(digest, cache.window_s, 0), 1)).count == 0

    async def test_subjects_and_windows_are_apart(self, cache: CacheHarness, digest: str) -> None:
        await cache.store.log(Hit(digest, cache.window_s, 1), 3)
        assert (await cache.store.log(Hit(f"{digest}x", cache.window_s, 0), 3)).count == 0
        assert (await cache.store.log(Hit(digest, cache.window_s + 1, 0), 3)).count == 0


async def heard(subscription: Subscription) -> bytes:
    async with asyncio.timeout(5):
        return (await subscription.next()).payload


class TestMessages:
    async def test_a_subscriber_hears_its_channels_in_order(
        self, cache: CacheHarness, digest: str
    ) -> None:
        async with cache.store.subscribe(f"a{digest}", f"b{digest}") as subscription:
            await cache.store.publish(f"a{digest}", b"1")
            await cache.store.publish(f"c{digest}", b"not mine")
            await cache.store.publish(f"b{digest}", b"\x00\xff")
            messages = [await subscription.next() for _ in range(2)]
        assert [(message.channel, message.payload) for message in messages] == [
            (f"a{digest}", b"1"),
            (f"b{digest}", b"\x00\xff"),
        ]
        assert subscription.lost == 0

    async def test_every_subscriber_hears(self, cache: CacheHarness, digest: str) -> None:
        async with (
            cache.store.subscribe(digest) as one,
            cache.store.subscribe(digest) as other,
        ):
            await cache.store.publish(digest, b"news")
            assert await heard(one) == b"news"
            assert await heard(other) == b"news"

    async def test_it_hears_from_now_on(self, cache: CacheHarness, digest: str) -> None:
        await cache.store.publish(digest, b"before")
        async with cache.store.subscribe(digest) as subscription:
            await cache.store.publish(digest, b"after")
            assert await heard(subscription) == b"after"

    async def test_a_reader_that_waits_is_woken(self, cache: CacheHarness, digest: str) -> None:
        async with cache.store.subscribe(digest) as subscription:
            waiting = asyncio.create_task(heard(subscription))
            await asyncio.sleep(0.01)
            assert not waiting.done()
            await cache.store.publish(digest, b"news")
            assert await waiting == b"news"

    async def test_a_reader_that_gives_up_loses_nothing(
        self, cache: CacheHarness, digest: str
    ) -> None:
        async with cache.store.subscribe(digest) as subscription:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await subscription.next()
            await cache.store.publish(digest, b"news")
            assert await heard(subscription) == b"news"

    async def test_a_slow_reader_loses_the_oldest_and_knows(
        self, cache: CacheHarness, digest: str
    ) -> None:
        async with cache.store.subscribe(digest) as subscription:
            for number in range(cache.max_messages + 3):
                await cache.store.publish(digest, b"%d" % number)
            await until(lambda: subscription.lost == 3)
            kept = [await heard(subscription) for _ in range(cache.max_messages)]
        assert kept == [b"%d" % (number + 3) for number in range(cache.max_messages)]
        assert subscription.lost == 3

    async def test_whoever_has_left_hears_no_more(self, cache: CacheHarness, digest: str) -> None:
        async with cache.store.subscribe(digest) as left:
            pass
        async with cache.store.subscribe(digest) as subscription:
            await cache.store.publish(digest, b"news")
            assert await heard(subscription) == b"news"
        with pytest.raises((TimeoutError, StoreUnavailableError)):
            async with asyncio.timeout(0.02):
                await left.next()
