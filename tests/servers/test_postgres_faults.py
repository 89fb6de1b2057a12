"""PostgreSQL killed, frozen, failed over, and met by several processes at once."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import count
from secrets import token_hex

import asyncpg
import pytest

from iotflow.domain.events import Event
from iotflow.domain.points import Point, Submission
from iotflow.domain.times import TimeRange
from iotflow.errors import OverloadedError, StoreUnavailableError
from iotflow.stores.events.protocol import EventQuery
from iotflow.stores.events.sql import SqlEventStore
from iotflow.stores.registry.sql import SqlRegistry
from iotflow.stores.telemetry.postgres import PostgresTelemetryStore
from iotflow.stores.telemetry.protocol import HistoryQuery
from tests.servers.own_server import OwnServers, own_servers

pytestmark = pytest.mark.servers

T0 = 1_767_225_600_000
DAY = TimeRange(T0, T0 + 86_400_000)
AWAY = (StoreUnavailableError, OverloadedError)
_marks = count(1_767_225_600_000_000)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServers]:
    with own_servers(tmp_path_factory.mktemp("postgres"), 2300, "postgres") as servers:
        servers.start()
        yield servers


@pytest.fixture(scope="module")
def url(servers: OwnServers) -> str:
    return servers.start()["IOTFLOW_REGISTRY__URL"]


@pytest.fixture
async def store(url: str) -> "Iterator[PostgresTelemetryStore]":
    store = PostgresTelemetryStore(url, write_s=2.0)
    await store.open()
    yield store
    await store.close()


def submission(device: int, at: int) -> Submission:
    return Submission(device, 7, (Point(T0 + at, "t", at),), next(_marks))


async def until_it_answers(call: Callable[[], Awaitable[object]], within_s: float = 20) -> None:
    async with asyncio.timeout(within_s):
        while True:
            try:
                await call()
            except AWAY:
                await asyncio.sleep(0.1)
            else:
                return


async def until(holds: Callable[[], bool], within_s: float = 20) -> None:
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 - what it waits for is a count
            await asyncio.sleep(0.02)


async def seconds_of(call: Awaitable[object]) -> float:
    """How long a call takes to say that the server is away."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with pytest.raises(AWAY):
        await call
    return loop.time() - begun


def writes_again(store: PostgresTelemetryStore) -> list[Awaitable[float]]:
    return [seconds_of(store.write(submission(1, at))) for at in range(50)]


class TestKilled:
    async def test_what_was_acknowledged_is_there_and_the_store_comes_back(
        self, servers: OwnServers, store: PostgresTelemetryStore
    ) -> None:
        acknowledged: set[tuple[int, int]] = set()
        refused = 0
        stopping = asyncio.Event()

        async def device(number: int) -> None:
            nonlocal refused
            for at in count():
                if stopping.is_set():
                    return
                try:
                    await store.write(submission(number, at))
                    acknowledged.add((number, at))
                except AWAY:
                    refused += 1
                    await asyncio.sleep(0.02)

        clients = [asyncio.ensure_future(device(number)) for number in range(64)]
        await asyncio.sleep(1.0)
        await until(lambda: len(acknowledged) > 500)
        await asyncio.to_thread(servers.kill, "postgres")
        await until(lambda: refused > 0)
        await asyncio.sleep(0.5)
        before = len(acknowledged)
        await asyncio.to_thread(servers.start)
        await until_it_answers(lambda: store.write(submission(99, 0)))
        await until(lambda: len(acknowledged) > before)
        stopping.set()
        await asyncio.gather(*clients)
        for number in range(64):
            wanted = {at for device_id, at in acknowledged if device_id == number}
            page = await store.history(HistoryQuery(number, DAY, 1_000_000))
            assert wanted <= {point.value for point in page.items}

    async def test_a_restart_between_calls_costs_none_of_them(
        self, servers: OwnServers, store: PostgresTelemetryStore, url: str
    ) -> None:
        registry, events = SqlRegistry(url), SqlEventStore(url)
        await registry.open()
        await events.open()
        try:
            for _ in range(3):
                await asyncio.gather(
                    store.write(submission(1, 1)),
                    store.latest([1]),
                    *(registry.cache_epoch() for _ in range(5)),
                    registry.raise_cache_epoch(),
                    events.append([Event(token_hex(8), "t", T0, 1, 1, {})]),
                    events.query(EventQuery(DAY, 1)),
                )
                await asyncio.to_thread(servers.kill, "postgres")
                await asyncio.to_thread(servers.start)
        finally:
            await registry.close()
            await events.close()

    async def test_a_store_opens_once_its_server_is_there(
        self, servers: OwnServers, url: str
    ) -> None:
        await asyncio.to_thread(servers.kill, "postgres")
        opened = [PostgresTelemetryStore(url), SqlRegistry(url), SqlEventStore(url)]
        for each in opened:
            assert await seconds_of(each.open()) < 4
            assert await seconds_of(each.ping()) < 1
        await asyncio.to_thread(servers.start)
        for each in opened:
            await until_it_answers(each.open)
            await each.ping()
            await each.close()


class TestFrozen:
    async def test_calls_end_in_time_and_go_on_afterwards(
        self, servers: OwnServers, store: PostgresTelemetryStore, url: str
    ) -> None:
        registry, events = SqlRegistry(url), SqlEventStore(url)
        await registry.open()
        await events.open()
        await store.write(submission(1, 1))
        await registry.ping()
        await events.ping()
        with servers.frozen("postgres"):
            writes = [seconds_of(store.write(submission(1, at))) for at in range(500)]
            reads = [seconds_of(store.latest([1])) for _ in range(4)]
            others = [seconds_of(each.ping()) for each in (registry, events) for _ in range(4)]
            assert max(await asyncio.gather(*writes, *reads, *others)) < 9
            assert max(await asyncio.gather(*writes_again(store))) < 8
            # It is known by now, and nobody waits any more.
            assert max(await asyncio.gather(*writes_again(store))) < 1
        await until_it_answers(lambda: store.write(submission(1, 2)))
        await until_it_answers(registry.ping)
        await until_it_answers(events.ping)
        await registry.close()
        await events.close()

    async def test_closing_ends_too(self, servers: OwnServers, url: str) -> None:
        store = PostgresTelemetryStore(url, write_s=2.0, drain_s=1.0)
        registry = SqlRegistry(url)
        await store.open()
        await registry.open()
        await store.write(submission(1, 1))
        await registry.ping()
        with servers.frozen("postgres"):
            write = asyncio.ensure_future(store.write(submission(1, 2)))
            await asyncio.sleep(0.1)
            async with asyncio.timeout(8):
                await store.close()
            with pytest.raises(StoreUnavailableError):
                await write
            async with asyncio.timeout(8):
                await registry.close()


OPEN_ALL = """
import asyncio, sys
from iotflow.stores.events.sql import SqlEventStore
from iotflow.stores.registry.sql import SqlRegistry
from iotflow.stores.telemetry.postgres import PostgresTelemetryStore

async def main(url):
    stores = [PostgresTelemetryStore(url), SqlRegistry(url), SqlEventStore(url)]
    await asyncio.gather(*(store.open() for store in stores))
    await asyncio.gather(*(store.ping() for store in stores))
    for store in stores:
        await store.close()

asyncio.run(main(sys.argv[1]))
"""


class TestProcesses:
    async def test_several_migrate_at_once(self, url: str) -> None:
        name = f"fresh_{token_hex(4)}"
        server, _, _ = url.rpartition("/")
        superuser = server.replace("//iotflow:", "//postgres:")
        admin = await asyncpg.connect(f"{superuser}/postgres", timeout=5)
        await admin.execute(f"CREATE DATABASE {name} OWNER iotflow")
        await admin.close()
        command = [sys.executable, "-W", "error", "-c", OPEN_ALL, f"{server}/{name}"]
        processes = [await asyncio.create_subprocess_exec(*command) for _ in range(4)]
        try:
            async with asyncio.timeout(60):
                statuses = await asyncio.gather(*(process.wait() for process in processes))
        finally:
            for process in processes:
                with suppress(ProcessLookupError):
                    process.kill()
        assert statuses == [0] * 4
        plain = await asyncpg.connect(f"{server}/{name}", timeout=5)
        for schema in ("telemetry", "registry", "events"):
            versions = await plain.fetch(f"SELECT version_num FROM {schema}.alembic_version")
            assert len(versions) == 1
        await plain.close()


class TestFailover:
    async def test_the_standby_takes_over_with_all_that_was_acknowledged(
        self, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        directory = tmp_path_factory.mktemp("standby")
        with own_servers(directory, 2500, "postgres-standby") as servers:
            settings = await asyncio.to_thread(servers.start)
            url = settings["IOTFLOW_REGISTRY__URL"]
            assert "," in url
            store, registry = PostgresTelemetryStore(url, write_s=2.0), SqlRegistry(url)
            await store.open()
            await registry.open()
            try:
                for at in range(20):
                    await store.write(submission(1, at))
                epoch = await registry.raise_cache_epoch()
                await asyncio.to_thread(servers.kill, "postgres-primary")
                assert await seconds_of(store.write(submission(1, 20))) < 4
                await promote(url)
                await until_it_answers(lambda: store.write(submission(1, 21)))
                await until_it_answers(registry.ping)
                page = await store.history(HistoryQuery(1, DAY, 100))
                assert {point.value for point in page.items} >= {*range(20), 21}
                assert await registry.cache_epoch() == epoch
                assert await registry.raise_cache_epoch() == epoch + 1
            finally:
                await store.close()
                await registry.close()


async def promote(url: str) -> None:
    standby = url.replace("//iotflow:", "//postgres:").partition("?")[0]
    host = standby.partition("@")[2].partition("/")[0].split(",")[1]
    credentials, _, _ = standby.partition("@")
    connection = await asyncpg.connect(f"{credentials}@{host}/iotflow", timeout=5)
    with suppress(asyncpg.PostgresError):
        await connection.fetchval("SELECT pg_promote()")
    await connection.close()
