"""What the telemetry store on Cassandra promises beyond the contract."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import date
from itertools import count
from random import Random
from secrets import randbits, token_hex
from typing import Any

import pytest

from iotflow.domain.points import INT64_MAX, Point, Submission
from iotflow.domain.times import DAY_MS, MAX_TIMESTAMP_MS, MINUTE_MS, TimeRange
from iotflow.errors import OverloadedError, StoreUnavailableError
from iotflow.stores.breaker import BreakerState
from iotflow.stores.telemetry.cassandra import CassandraTelemetryStore
from iotflow.stores.telemetry.protocol import (
    FleetHistoryQuery,
    HistoryQuery,
    Order,
    PageKey,
    SlotQuery,
)
from tests.contract.servers import server_url
from tests.contract.telemetry_device import exact
from tests.contract.telemetry_model import TelemetryModel
from tests.servers.cassandra_session import PlainSession, plain_session

pytestmark = pytest.mark.servers

T0 = 1_767_225_600_000
DAY = date(2026, 1, 1)
EVER = TimeRange(0, MAX_TIMESTAMP_MS + 1)
SLOT_MS = 10 * MINUTE_MS

_ids = count(randbits(40) + 1)
_marks = count(1_767_225_600_000_000)


def url_of(keyspace: str, more: str = "") -> str:
    hosts = server_url("IOTFLOW_TEST_CASSANDRA_URL").partition("?")[0].rpartition("/")[0]
    return f"{hosts}/{keyspace}?replication=1{more}"


@dataclass
class Place:
    """A keyspace of the tests' own."""

    keyspace: str
    plain: PlainSession

    def store(self, more: str = "", **options: Any) -> CassandraTelemetryStore:
        return CassandraTelemetryStore(url_of(self.keyspace, more), **options)

    async def of(self, device_id: int, columns: str, table: str) -> list[tuple[Any, ...]]:
        """A device's rows in a table that has the device as its key."""
        cql = f"SELECT {columns} FROM {self.keyspace}.{table} WHERE device_id = {device_id}"
        return await self.plain.rows(cql)

    async def points_of(self, device_id: int, day: date, columns: str) -> list[tuple[Any, ...]]:
        return await self.plain.rows(
            f"SELECT {columns} FROM {self.keyspace}.telemetry_by_device"
            f" WHERE device_id = {device_id} AND day = '{day}'"
        )


@pytest.fixture(scope="module", name="place")
async def _place() -> AsyncGenerator[Place]:
    keyspace = f"iotflow_test_{token_hex(4)}"
    async with plain_session(url_of(keyspace)) as plain:
        yield Place(keyspace, plain)
        await plain.rows(f"DROP KEYSPACE IF EXISTS {keyspace}")


@pytest.fixture(scope="module", name="store")
async def _store(place: Place) -> AsyncGenerator[CassandraTelemetryStore]:
    store = place.store()
    await store.open()
    yield store
    await store.close()


@pytest.fixture(name="device_id")
def _device_id() -> int:
    return next(_ids)


async def write(store: CassandraTelemetryStore, device_id: int, *points: Point) -> int:
    mark = next(_marks)
    await store.write(Submission(device_id, 7, points, mark))
    return mark


def at(at_ms: int, name: str = "t", value: float | str = 1.5) -> Point:
    return Point(T0 + at_ms, name, value)


class TestRows:
    async def test_points_are_rows_of_their_device_and_day(
        self, store: CassandraTelemetryStore, place: Place, device_id: int
    ) -> None:
        mark = await write(
            store,
            device_id,
            Point(T0 + 1, "a", 21.5, "C"),
            Point(T0 + 1, "b", INT64_MAX),
            Point(T0 + 2, "c", True),
            Point(T0 + DAY_MS - 1, "d", "open", "state"),
            Point(T0 + DAY_MS, "e", 0.0),
        )
        columns = (
            "toUnixTimestamp(timestamp), measurement_name, user_id, value, value_type, unit,"
            " int_value, text_value, writetime(user_id), writetime(value), writetime(unit),"
            " ttl(value)"
        )
        marks = (mark, mark, mark, None)
        assert await place.points_of(device_id, DAY, columns) == [
            (T0 + DAY_MS - 1, "d", 7, 0.0, 3, "state", None, "open", *marks),
            (T0 + 2, "c", 7, 1.0, 2, "", None, None, *marks),
            (T0 + 1, "a", 7, 21.5, 0, "C", None, None, *marks),
            (T0 + 1, "b", 7, float(INT64_MAX), 1, "", INT64_MAX, None, *marks),
        ]
        rows = await place.points_of(device_id, date(2026, 1, 2), "measurement_name")
        assert rows == [("e",)]

    async def test_the_indexes_hold_days_and_upper_bounds(
        self, store: CassandraTelemetryStore, place: Place, device_id: int
    ) -> None:
        await write(store, device_id, at(SLOT_MS + 5), at(2 * DAY_MS, "u"), at(0))
        days = await place.of(device_id, "day", "days_by_device")
        assert days == [(date(2026, 1, 3),), (DAY,)]
        columns = "measurement_name, toUnixTimestamp(timestamp), writetime(timestamp)"
        bounds = {"t": T0 + 2 * SLOT_MS - 1, "u": T0 + 2 * DAY_MS + SLOT_MS - 1}
        assert await place.of(device_id, columns, "latest_by_device") == [
            (name, bound_ms, bound_ms * 1_000) for name, bound_ms in bounds.items()
        ]

    async def test_a_bound_never_falls_whoever_writes(
        self, store: CassandraTelemetryStore, place: Place, device_id: int
    ) -> None:
        await write(store, device_id, at(5 * SLOT_MS))
        other = place.store()
        await other.open()
        await write(other, device_id, at(0))
        await other.close()
        column = "toUnixTimestamp(timestamp)"
        bounds = await place.of(device_id, column, "latest_by_device")
        assert bounds == [(T0 + 6 * SLOT_MS - 1,)]

    @pytest.mark.parametrize("seed", [1, 2])
    async def test_times_are_exact_to_the_millisecond_over_the_whole_calendar(
        self, store: CassandraTelemetryStore, device_id: int, seed: int
    ) -> None:
        random = Random(seed)
        times = {0, 1, 999, MAX_TIMESTAMP_MS, MAX_TIMESTAMP_MS - 1}
        times |= {random.randrange(MAX_TIMESTAMP_MS) for _ in range(300)}
        times |= {T0 + random.randrange(3 * DAY_MS) for _ in range(1_000)}
        await write(store, device_id, *(Point(time, "t", 1) for time in times))
        query = HistoryQuery(device_id, EVER, 10_000, Order.ASC)
        page = await store.history(query)
        assert [point.timestamp_ms for point in page.items] == sorted(times)
        newest = (await store.latest([device_id]))[device_id]
        assert [point.timestamp_ms for point in newest] == [MAX_TIMESTAMP_MS]

    async def test_a_batch_may_be_larger_than_the_servers_threshold_for_batches(
        self, store: CassandraTelemetryStore, device_id: int
    ) -> None:
        """50 KiB, of which Cassandra says that it holds for more than one partition alone."""
        few = [at(0, f"m{number:02d}", "x" * 20_000) for number in range(16)]
        await write(store, device_id, *few)
        many = [at(1, f"m{number:03d}", "x" * 2_000) for number in range(600)]
        await write(store, device_id, *many)
        page = await store.history(HistoryQuery(device_id, EVER, 1_000, Order.ASC))
        assert exact(page.items) == exact([*few, *many])

    async def test_what_the_store_cannot_take_is_the_callers_error(
        self, store: CassandraTelemetryStore, device_id: int
    ) -> None:
        for _ in range(10):
            with pytest.raises(UnicodeEncodeError):
                await write(store, device_id, at(0, "t", "\ud800"))
        assert store.breaker_state is BreakerState.CLOSED
        await write(store, device_id, at(0))


class TestRetention:
    async def test_points_expire_as_the_url_says_and_their_days_later(self, place: Place) -> None:
        keyspace = f"{place.keyspace}_ttl"
        kept = Place(keyspace, place.plain)
        try:
            store = kept.store("&ttl_s=2")
            await store.open()
            device_id = next(_ids)
            await write(store, device_id, at(0), at(0, "u", "text"))
            assert len(await kept.points_of(device_id, DAY, "value")) == 2
            await asyncio.sleep(2.5)
            assert await kept.points_of(device_id, DAY, "value") == []
            assert await kept.of(device_id, "day", "days_by_device") == [(DAY,)]
            assert await store.latest([device_id]) == {}
            await store.close()
            for_ever = kept.store()
            await for_ever.open()
            await write(for_ever, device_id, at(1))
            assert await kept.points_of(device_id, DAY, "ttl(value)") == [(None,)]
            await for_ever.close()
        finally:
            await place.plain.rows(f"DROP KEYSPACE IF EXISTS {keyspace}")


class TestStatements:
    async def test_a_usual_submission_is_one_batch(
        self, store: CassandraTelemetryStore, device_id: int
    ) -> None:
        await write(store, device_id, at(0), at(0, "u", 2), at(0, "v", "text"))
        before = store.statements
        for turn in range(1, 101):
            await write(store, device_id, at(turn), at(turn, "u", 2), at(turn, "v", "text"))
        assert store.statements - before == 100

    async def test_once_in_ten_minutes_the_index_rises(
        self, store: CassandraTelemetryStore, device_id: int
    ) -> None:
        before = store.statements
        for turn in range(60):
            await write(store, device_id, at(turn * MINUTE_MS), at(turn * MINUTE_MS, "u"))
        assert store.statements - before == 60 + 6

    async def test_a_latest_read_is_two_statements(
        self, store: CassandraTelemetryStore, device_id: int
    ) -> None:
        names = [f"m{number:02d}" for number in range(40)]
        for turn in range(5):
            await write(store, device_id, *(at(turn * MINUTE_MS, name) for name in names))
        await store.latest([device_id])
        before = store.statements
        found = await store.latest([device_id])
        assert len(found[device_id]) == 40
        assert store.statements - before == 2

    async def test_rare_measurements_cost_few_more(
        self, store: CassandraTelemetryStore, device_id: int
    ) -> None:
        rare = [f"rare{number}" for number in range(8)]
        await write(store, device_id, *(at(0, name) for name in rare))
        for begin in range(1, 2_000, 500):
            await write(store, device_id, *(at(begin + turn, "busy") for turn in range(500)))
        await store.latest([device_id])
        before = store.statements
        assert len((await store.latest([device_id]))[device_id]) == 9
        assert store.statements - before == 3

    @pytest.mark.parametrize("order", list(Order))
    async def test_a_page_reads_the_days_that_it_needs_and_no_empty_ones(
        self, store: CassandraTelemetryStore, device_id: int, order: Order
    ) -> None:
        days = (3, 150, 290)
        await write(store, device_id, *(at(day * DAY_MS + turn) for day in days for turn in (0, 1)))
        within = TimeRange(T0, T0 + 300 * DAY_MS)
        for limit, expected in ((100, 1 + 3), (1, 1 + 1)):
            query = HistoryQuery(device_id, within, limit, order)
            await store.history(query)
            before = store.statements
            page = await store.history(query)
            assert len(page.items) == min(limit, 6)
            ties = int(order is Order.ASC and page.more)
            assert store.statements - before == expected + ties

    @pytest.mark.parametrize("order", list(Order))
    async def test_a_page_of_24_hours_asks_only_for_points(
        self, store: CassandraTelemetryStore, device_id: int, order: Order
    ) -> None:
        noon_ms = T0 + DAY_MS // 2
        await write(store, device_id, *(at(hour * DAY_MS // 24) for hour in range(48)))
        within = TimeRange(noon_ms, noon_ms + DAY_MS)
        for limit, expected in ((5, 1), (100, 2)):
            query = HistoryQuery(device_id, within, limit, order)
            before = store.statements
            page = await store.history(query)
            assert len(page.items) == min(limit, 24)
            ties = int(order is Order.ASC and page.more)
            assert store.statements - before == expected + ties

    async def test_an_empty_range_costs_one_read(
        self, store: CassandraTelemetryStore, device_id: int
    ) -> None:
        await write(store, device_id, at(0))
        empty = TimeRange(T0 + 10 * DAY_MS, T0 + 300 * DAY_MS)
        before = store.statements
        assert (await store.history(HistoryQuery(device_id, empty, 100))).items == []
        assert await store.slots(SlotQuery(device_id, "t", empty, DAY_MS, 1_000)) == []
        assert await store.samples(device_id, "t", empty, 1_000) == []
        assert store.statements - before == 3

    async def test_many_sparse_days_are_read_together(
        self, store: CassandraTelemetryStore, device_id: int
    ) -> None:
        await write(store, device_id, *(at(day * DAY_MS) for day in range(200)))
        query = HistoryQuery(device_id, EVER, 50)
        before = store.statements
        assert len((await store.history(query)).items) == 50
        assert store.statements - before <= 1 + 51 + 8

    async def test_a_fleet_page_costs_the_page(self, store: CassandraTelemetryStore) -> None:
        fleet = [next(_ids) for _ in range(20)]
        for device_id in fleet:
            await write(store, device_id, *(at(day * DAY_MS + 1) for day in range(60)))
        # One device is ahead of all others: the page is its points alone.
        await write(store, fleet[3], *(at(70 * DAY_MS + turn) for turn in range(40)))
        query = FleetHistoryQuery(tuple(fleet), EVER, 10)
        before = store.statements
        page = await store.fleet_history(query)
        assert {point.device_id for point in page.items} == {fleet[3]}
        assert store.statements - before <= len(fleet) + 3


class TestReplicas:
    async def test_migrations_at_once_make_everything_once(self, place: Place) -> None:
        keyspace = f"{place.keyspace}_many"
        many = Place(keyspace, place.plain)
        stores = [many.store() for _ in range(4)]
        try:
            await asyncio.gather(*(store.open() for store in stores))
            tables = await place.plain.rows(
                f"SELECT table_name FROM system_schema.tables WHERE keyspace_name = '{keyspace}'"
            )
            assert {name for (name,) in tables} == {
                "telemetry_by_device",
                "days_by_device",
                "latest_by_device",
                "iotflow_migrations",
            }
            rows = await place.plain.rows(
                f"SELECT kind, version FROM {keyspace}.iotflow_migrations"
            )
            assert rows == [("applied", 1)]
            device_id = next(_ids)
            for turn, store in enumerate(stores):
                await write(store, device_id, at(turn))
            for store in stores:
                page = await store.history(HistoryQuery(device_id, EVER, 10))
                assert len(page.items) == len(stores)
        finally:
            for store in stores:
                await store.close()
            await place.plain.rows(f"DROP KEYSPACE IF EXISTS {keyspace}")

    @pytest.mark.parametrize("turn", range(8))
    async def test_a_replica_that_comes_while_tables_are_made_waits_for_them(
        self, place: Place, turn: int
    ) -> None:
        keyspace = f"{place.keyspace}_late{turn}"
        stores = [Place(keyspace, place.plain).store() for _ in range(6)]

        async def open_after(delay_s: float, store: CassandraTelemetryStore) -> None:
            await asyncio.sleep(delay_s)
            await store.open()

        try:
            await asyncio.gather(*(open_after(n * 0.05, store) for n, store in enumerate(stores)))
        finally:
            for store in stores:
                await store.close()
            await place.plain.rows(f"DROP KEYSPACE IF EXISTS {keyspace}")

    async def test_a_lock_that_was_left_behind_is_waited_for_and_then_taken(
        self, place: Place
    ) -> None:
        keyspace = f"{place.keyspace}_lock"
        left = Place(keyspace, place.plain)
        store = left.store()
        try:
            await store.open()
            await store.close()
            for cql in (
                "DELETE FROM {}.iotflow_migrations WHERE kind = 'applied'",
                "INSERT INTO {}.iotflow_migrations (kind, version, holder)"
                " VALUES ('lock', 0, 'dead') IF NOT EXISTS USING TTL 2",
            ):
                await place.plain.rows(cql.format(keyspace))
            opening = asyncio.create_task(store.open())
            await asyncio.sleep(1)
            assert not opening.done()
            async with asyncio.timeout(10):
                await opening
        finally:
            await store.close()
            await place.plain.rows(f"DROP KEYSPACE IF EXISTS {keyspace}")

    @pytest.mark.parametrize("seed", range(6))
    async def test_two_replicas_at_once_agree_with_a_model(self, place: Place, seed: int) -> None:
        """Late points, range deletes and re-imports, none waiting for another."""
        random, device_id = Random(seed), next(_ids)
        stores = [place.store() for _ in range(2)]
        await asyncio.gather(*(store.open() for store in stores))
        model = TelemetryModel(shadows=True)
        times = [T0 + day * DAY_MS + turn for day in (0, 1, 4, 9) for turn in (0, 1, DAY_MS - 1)]
        try:
            for _ in range(12):
                calls: list[Any] = []
                marks = [next(_marks) for _ in range(10)]
                random.shuffle(marks)
                for mark in marks:
                    store = random.choice(stores)
                    if random.random() < 0.3:
                        start, end = sorted(random.sample([*times, times[-1] + 1], 2))
                        model.delete(TimeRange(start, end), mark)
                        calls.append(store.delete_range(device_id, TimeRange(start, end), mark))
                        continue
                    keys = random.sample([(t, n) for t in times for n in "abc"], 3)
                    values = [random.choice([1, 2.5, True, "x"]) for _ in keys]
                    points = tuple(
                        Point(*key, value, str(mark))
                        for key, value in zip(keys, values, strict=True)
                    )
                    model.write(points, mark)
                    calls.append(store.write(Submission(device_id, 7, points, mark)))
                await asyncio.gather(*calls)
                for store in stores:
                    latest = (await store.latest([device_id])).get(device_id, [])
                    assert latest == model.latest()
                    query = HistoryQuery(device_id, EVER, 1_000, Order.ASC)
                    page = await store.history(query)
                    assert exact(page.items) == exact(model.history(EVER))
        finally:
            for store in stores:
                await store.close()

    async def test_a_deleted_device_leaves_no_row(self, place: Place, device_id: int) -> None:
        one, other = place.store(), place.store()
        await asyncio.gather(one.open(), other.open())
        try:
            days = [date(2026, 1, 1), date(2026, 1, 2), date(2026, 2, 1)]
            await write(one, device_id, at(0), at(DAY_MS, "u"))
            await write(other, device_id, at(31 * DAY_MS), at(0, "w"))
            await one.delete_device(device_id)
            for day in days:
                assert await place.points_of(device_id, day, "measurement_name") == []
            assert await place.of(device_id, "day", "days_by_device") == []
            assert await place.of(device_id, "measurement_name", "latest_by_device") == []
            assert await other.latest([device_id]) == {}
            # What was on its way when the device was deleted stays hidden, too.
            await write(other, device_id, at(0))
            assert await place.points_of(device_id, DAY, "measurement_name") == []
        finally:
            await one.close()
            await other.close()


class TestBounds:
    async def test_what_is_above_the_bounds_is_refused_and_the_rest_is_done(
        self, place: Place
    ) -> None:
        store = place.store(max_in_flight=2, max_waiting=5)
        await store.open()
        try:
            device_id = next(_ids)
            await write(store, device_id, at(0))
            done = await asyncio.gather(
                *(write(store, device_id, at(turn)) for turn in range(1, 101)),
                return_exceptions=True,
            )
            refused = [each for each in done if isinstance(each, BaseException)]
            assert {type(each) for each in refused} == {OverloadedError}
            stored = {turn for turn, each in enumerate(done, 1) if isinstance(each, int)}
            assert len(stored) >= 7
            page = await store.history(HistoryQuery(device_id, EVER, 1_000))
            assert {point.timestamp_ms - T0 for point in page.items} == stored | {0}
            assert store.waiting_statements == 0
            assert store.breaker_state is BreakerState.CLOSED
        finally:
            await store.close()

    async def test_callers_that_go_away_leave_their_turns_to_others(self, place: Place) -> None:
        store = place.store(max_in_flight=2, max_waiting=100)
        await store.open()
        try:
            device_id = next(_ids)
            await write(store, device_id, at(0))
            for _ in range(20):
                tasks = [asyncio.create_task(write(store, device_id, at(n))) for n in range(20)]
                await asyncio.sleep(0)
                for task in tasks[::2]:
                    task.cancel()
                done = await asyncio.gather(*tasks, return_exceptions=True)
                assert not [e for e in done[1::2] if isinstance(e, BaseException)]
            assert store.waiting_statements == 0
            await asyncio.gather(write(store, device_id, at(1)), write(store, device_id, at(2)))
        finally:
            await store.close()

    async def test_a_cursor_at_the_edge_of_the_range_ends_it(
        self, store: CassandraTelemetryStore, device_id: int
    ) -> None:
        await write(store, device_id, at(0), at(1))
        for order, last in ((Order.DESC, T0), (Order.ASC, T0 + 1)):
            within = TimeRange(T0, T0 + 2)
            query = HistoryQuery(device_id, within, 5, order, (), PageKey(last, "t"))
            page = await store.history(query)
            assert (page.items, page.more) == ([], False)

    async def test_a_store_that_was_closed_can_be_opened_again(
        self, place: Place, device_id: int
    ) -> None:
        store = place.store()
        for turn in range(2):
            await store.open()
            await write(store, device_id, at(turn))
            await store.close()
            with pytest.raises(StoreUnavailableError):
                await store.ping()
