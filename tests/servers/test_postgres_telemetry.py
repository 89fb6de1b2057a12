"""The telemetry store on PostgreSQL: its tables, its transactions, its bounds."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count
from random import Random
from secrets import randbits
from typing import Any

import asyncpg
import pytest

from iotflow.domain.points import INT64_MAX, Point, Submission
from iotflow.domain.times import TimeRange
from iotflow.errors import OverloadedError, StoreUnavailableError
from iotflow.stores.postgres import connect_arguments
from iotflow.stores.telemetry.postgres import PostgresTelemetryStore
from iotflow.stores.telemetry.protocol import (
    FleetHistoryQuery,
    FleetPageKey,
    HistoryQuery,
    SlotQuery,
)
from tests.contract.servers import server_url

pytestmark = pytest.mark.servers

T0 = 1_767_225_600_000
HOUR = TimeRange(T0, T0 + 3_600_000)
_devices = count(randbits(40) + 1)
_marks = count(1_767_225_600_000_000)


@pytest.fixture(scope="module")
def url() -> str:
    return server_url("IOTFLOW_TEST_POSTGRES_URL")


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncGenerator[PostgresTelemetryStore]:
    store = PostgresTelemetryStore(url, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture(scope="module")
async def store(url: str) -> AsyncGenerator[PostgresTelemetryStore]:
    async with opened(url) as store:
        yield store


@pytest.fixture
async def plain(url: str) -> AsyncGenerator[Any]:
    """A connection without any of the store's code."""
    connection = await asyncpg.connect(url, timeout=5)
    yield connection
    await connection.close()


def submission(device: int, *points: Point) -> Submission:
    return Submission(device, 7, points, next(_marks))


async def latest_and_truth(plain: Any, devices: list[int]) -> tuple[list[Any], list[Any]]:
    """The latest index, and what it has to be."""
    index = await plain.fetch(
        "SELECT device_id, measurement, timestamp_ms FROM telemetry.latest"
        " WHERE device_id = ANY($1) ORDER BY 1, 2",
        devices,
    )
    truth = await plain.fetch(
        "SELECT device_id, measurement, max(timestamp_ms) FROM telemetry.points"
        " WHERE device_id = ANY($1) GROUP BY 1, 2 ORDER BY 1, 2",
        devices,
    )
    return [tuple(row) for row in index], [tuple(row) for row in truth]


class TestTables:
    async def test_points_are_rows_of_typed_columns(
        self, store: PostgresTelemetryStore, plain: Any
    ) -> None:
        device = next(_devices)
        written = submission(
            device,
            Point(T0, "a", 23.5, "°C"),
            Point(T0, "b", INT64_MAX),
            Point(T0, "c", True),
            Point(T0, "d", "open"),
            Point(T0 + 1, "a", -0.0),
        )
        await store.write(written)
        rows = await plain.fetch(
            "SELECT timestamp_ms, measurement, value, value_type, unit, int_value, text_value,"
            " user_id, ingested_at FROM telemetry.points WHERE device_id = $1 ORDER BY 1, 2",
            device,
        )
        mark = written.written_us
        assert repr([tuple(row) for row in rows]) == repr(
            [
                (T0, "a", 23.5, 0, "°C", None, None, 7, mark),
                (T0, "b", float(INT64_MAX), 1, "", INT64_MAX, None, 7, mark),
                (T0, "c", 1.0, 2, "", None, None, 7, mark),
                (T0, "d", 0.0, 3, "", None, "open", 7, mark),
                (T0 + 1, "a", -0.0, 0, "", None, None, 7, mark),
            ]
        )
        index, _ = await latest_and_truth(plain, [device])
        assert index == [(device, "a", T0 + 1)] + [(device, name, T0) for name in "bcd"]

    async def test_the_schema_belongs_to_the_role(self, plain: Any) -> None:
        tables = await plain.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'telemetry' ORDER BY 1"
        )
        assert [name for (name,) in tables] == ["alembic_version", "latest", "points"]


class TestGroupCommit:
    async def test_many_writes_share_few_transactions(
        self, store: PostgresTelemetryStore, plain: Any
    ) -> None:
        devices = [next(_devices) for _ in range(400)]
        before = store.groups_committed
        await asyncio.gather(
            *(
                store.write(submission(device, Point(T0 + at, "t", at)))
                for device in devices
                for at in range(5)
            )
        )
        found = await plain.fetchrow(
            "SELECT count(*), count(DISTINCT xmin::text) FROM telemetry.points"
            " WHERE device_id = ANY($1)",
            devices,
        )
        assert found[0] == 2_000
        assert found[1] == store.groups_committed - before
        assert found[1] <= 10

    async def test_an_answer_comes_after_the_commit(
        self, store: PostgresTelemetryStore, plain: Any
    ) -> None:
        device = next(_devices)
        await store.write(submission(device, Point(T0, "t", 1)))
        async with plain.transaction():
            await plain.execute(
                "SELECT 1 FROM telemetry.latest WHERE device_id = $1 FOR UPDATE", device
            )
            held = asyncio.ensure_future(store.write(submission(device, Point(T0 + 1, "t", 2))))
            await asyncio.sleep(0.2)
            assert not held.done()
            # A writer is free: others are answered meanwhile.
            await store.write(submission(next(_devices), Point(T0, "t", 1)))
            assert not held.done()
        await held
        page = await store.history(HistoryQuery(device, HOUR, 10))
        assert [point.value for point in page.items] == [2, 1]

    async def test_a_bad_submission_of_a_group_spoils_no_other(
        self, store: PostgresTelemetryStore
    ) -> None:
        devices = [next(_devices) for _ in range(20)]
        values = ["half a pair: \ud800" if at == 7 else f"fine {at}" for at in range(20)]
        outcomes = await asyncio.gather(
            *(
                store.write(submission(device, Point(T0, "t", value)))
                for device, value in zip(devices, values, strict=True)
            ),
            return_exceptions=True,
        )
        assert [at for at, outcome in enumerate(outcomes) if outcome is not None] == [7]
        assert isinstance(outcomes[7], ValueError)
        latest = await store.latest(devices)
        assert sorted(latest) == sorted(set(devices) - {devices[7]})

    async def test_a_cancelled_writer_spoils_nothing(self, store: PostgresTelemetryStore) -> None:
        device = next(_devices)
        writes = [
            asyncio.ensure_future(store.write(submission(device, Point(T0 + at, "t", at))))
            for at in range(50)
        ]
        await asyncio.sleep(0)
        for write in writes[::2]:
            write.cancel()
        await asyncio.gather(*writes[1::2])
        await store.write(submission(device, Point(T0 + 50, "t", 50)))
        page = await store.history(HistoryQuery(device, HOUR, 100))
        assert {point.value for point in page.items} >= {*range(1, 50, 2), 50}
        assert store.queued_points == 0


class TestReplicas:
    async def test_they_never_wait_in_a_circle_and_the_index_stays_true(
        self, url: str, plain: Any
    ) -> None:
        """Late points, repeats, range deletes, all at once on few devices through three stores."""
        random, devices = Random(3), [next(_devices) for _ in range(3)]

        def some() -> list[Point]:
            names = random.sample("abcdefgh", random.randint(1, 8))
            return [Point(T0 + random.randint(0, 40), name, random.random()) for name in names]

        async def replica(store: PostgresTelemetryStore) -> None:
            for _ in range(60):
                await asyncio.gather(
                    *(store.write(submission(random.choice(devices), *some())) for _ in range(8))
                )
                if random.random() < 0.5:
                    start_ms = T0 + random.randint(0, 40)
                    within = TimeRange(start_ms, start_ms + random.randint(1, 30))
                    await store.delete_range(random.choice(devices), within, next(_marks))

        async with opened(url) as a, opened(url) as b, opened(url) as c:
            await asyncio.gather(*(replica(each) for each in (a, b, c)))
            index, truth = await latest_and_truth(plain, devices)
            assert index == truth
            for device in devices:
                points = await plain.fetchval(
                    "SELECT count(*) FROM telemetry.points WHERE device_id = $1", device
                )
                assert await b.delete_device(device) == points
        assert await latest_and_truth(plain, devices) == ([], [])

    async def test_a_delete_sees_what_another_replica_is_writing(
        self, store: PostgresTelemetryStore, plain: Any
    ) -> None:
        """The index may not fall below a point that was committed while the delete waited."""
        device = next(_devices)
        await store.write(submission(device, Point(T0 + 9, "t", 9), Point(T0 + 1, "t", 1)))
        async with plain.transaction():
            await plain.execute(
                "INSERT INTO telemetry.latest VALUES ($1, 't', $2)"
                " ON CONFLICT (device_id, measurement) DO UPDATE SET timestamp_ms = $2"
                " WHERE latest.timestamp_ms < $2",
                device,
                T0 + 5,
            )
            deleting = asyncio.ensure_future(
                store.delete_range(device, TimeRange(T0 + 8, T0 + 10), next(_marks))
            )
            await asyncio.sleep(0.2)
            assert not deleting.done()
            await plain.execute(
                "INSERT INTO telemetry.points VALUES ($1, $2, 't', 5, 0, '', NULL, NULL, 7, $3)",
                device,
                T0 + 5,
                next(_marks),
            )
        assert await deleting == 1
        [latest] = (await store.latest([device]))[device]
        assert latest.timestamp_ms == T0 + 5


class TestBounds:
    async def test_too_many_waiting_points_are_refused_and_not_begun(
        self, url: str, plain: Any
    ) -> None:
        device, refused = next(_devices), next(_devices)
        async with opened(url, writers=1, max_queued_points=10) as store:
            await store.write(submission(device, Point(T0, "t", 1)))
            async with plain.transaction():
                await plain.execute(
                    "SELECT 1 FROM telemetry.latest WHERE device_id = $1 FOR UPDATE", device
                )
                waiting = [
                    asyncio.ensure_future(store.write(submission(device, Point(T0 + at, "t", at))))
                    for at in range(1, 11)
                ]
                await asyncio.sleep(0.1)
                with pytest.raises(OverloadedError):
                    await store.write(submission(refused, Point(T0, "t", 1)))
            await asyncio.gather(*waiting)
            assert await store.latest([refused]) == {}
            await store.write(submission(refused, Point(T0, "t", 1)))

    async def test_no_more_reads_than_connections_and_a_clear_word_for_the_rest(
        self, url: str, plain: Any
    ) -> None:
        device = next(_devices)
        async with opened(url, readers=2) as store:
            await store.write(submission(device, Point(T0, "t", 1)))
            query = HistoryQuery(device, HOUR, 10)
            async with plain.transaction():
                await plain.execute("LOCK TABLE telemetry.points IN ACCESS EXCLUSIVE MODE")
                held = [asyncio.ensure_future(store.history(query)) for _ in range(2)]
                await asyncio.sleep(0.1)
                with pytest.raises(OverloadedError):
                    await store.history(query)
            assert [len(page.items) for page in await asyncio.gather(*held)] == [1, 1]
            assert len((await store.history(query)).items) == 1

    async def test_a_read_that_nobody_waits_for_any_more_ends_on_the_server(
        self, url: str, plain: Any
    ) -> None:
        async with opened(f"{url}?application_name=cancelled_reads", readers=1) as store:
            locker = await asyncpg.connect(url, timeout=5)
            async with locker.transaction():
                await locker.execute("LOCK TABLE telemetry.points IN ACCESS EXCLUSIVE MODE")
                read = asyncio.ensure_future(store.history(HistoryQuery(1, HOUR, 10)))
                await asyncio.sleep(0.2)
                assert await active(plain, "cancelled_reads") == 1
                read.cancel()
                await asyncio.wait([read])
                assert await active(plain, "cancelled_reads") == 0
            await locker.close()
            assert (await store.history(HistoryQuery(1, HOUR, 1))) is not None


async def active(plain: Any, name: str) -> int:
    found: int = await plain.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND state = 'active'",
        name,
    )
    return found


class TestOldPrimaries:
    async def test_a_server_that_only_reads_by_now_is_left(self, url: str, plain: Any) -> None:
        """As a primary does that comes back as a standby and keeps its connections."""
        name = f"old_primary_{randbits(30)}"
        options = f"default_transaction_read_only=on&application_name={name}"
        async with opened(f"{url}?{options}", writers=1, readers=1) as store:
            await store.ping()
            [before] = await processes(plain, name)
            with pytest.raises(StoreUnavailableError):
                await store.write(submission(next(_devices), Point(T0, "t", 1)))
            await store.ping()
            assert before not in await processes(plain, name)


async def processes(plain: Any, name: str) -> list[int]:
    found = await plain.fetch("SELECT pid FROM pg_stat_activity WHERE application_name = $1", name)
    return [pid for (pid,) in found]


class TestReads:
    async def test_sums_past_the_largest_double_are_infinite(
        self, store: PostgresTelemetryStore
    ) -> None:
        device = next(_devices)
        huge = [Point(T0 + at, "t", 1e308) for at in range(3)]
        await store.write(submission(device, *huge, Point(T0 + 1_000, "t", 2.5)))
        slots = await store.slots(SlotQuery(device, "t", HOUR, 1_000, 100))
        assert [slot.total for slot in slots] == [float("inf"), 2.5]

    @pytest.mark.parametrize("limit", [1, 7, 50, 1_000])
    async def test_pages_across_devices_of_uneven_share(
        self, store: PostgresTelemetryStore, limit: int
    ) -> None:
        """One device has most of a page, some a point each, one none."""
        devices = [next(_devices) for _ in range(12)]
        for share, device in enumerate(devices):
            points = [Point(T0 + at * (share + 1), n, at) for at in range(share**2) for n in "ab"]
            if points:
                await store.write(submission(device, *points))
        found: list[tuple[int, int, str]] = []
        after: FleetPageKey | None = None
        while True:
            query = FleetHistoryQuery(tuple(devices), HOUR, limit, after)
            page = await store.fleet_history(query)
            found += [(-f.point.timestamp_ms, f.device_id, f.point.measurement) for f in page.items]
            if not page.more:
                break
            after = FleetPageKey(-found[-1][0], found[-1][1], found[-1][2])
        assert len(found) == sum(2 * share**2 for share in range(12))
        assert found == sorted(found)
        assert len(set(found)) == len(found)


class TestUrls:
    async def test_behind_a_transaction_pool_nothing_is_prepared_by_name(
        self, url: str, plain: Any
    ) -> None:
        arguments = connect_arguments(f"{url}?pgbouncer=true&application_name=pooled")
        assert arguments["statement_cache_size"] == 0
        assert "server_settings" not in arguments
        assert "pgbouncer" not in arguments["dsn"]
        device = next(_devices)
        async with opened(f"{url}?pgbouncer=true") as store:
            await store.write(submission(device, Point(T0, "t", 1)))
            assert len((await store.history(HistoryQuery(device, HOUR, 1))).items) == 1
            assert await store.delete_device(device) == 1

    async def test_settings_in_the_url_win(self, url: str) -> None:
        arguments = connect_arguments(f"{url}?statement_timeout=1234")
        assert arguments["server_settings"]["statement_timeout"] == "1234"
        connection = await asyncpg.connect(**arguments)
        assert await connection.fetchval("SHOW statement_timeout") == "1234ms"
        assert await connection.fetchval("SHOW application_name") == "iotflow"
        await connection.close()
