"""The registry on PostgreSQL: round trips, bounds, locks; and what its errors mean, everywhere."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from iotflow.domain.devices import Device
from iotflow.errors import NotFoundError, OverloadedError, StoreBusyError, StoreUnavailableError
from iotflow.stores.breaker import BreakerState
from iotflow.stores.registry.protocol import NewDevice, NewKey, NewRefreshToken, NewUser
from iotflow.stores.registry.sql import SqlRegistry
from tests.contract.servers import server_url

pytestmark = pytest.mark.servers

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def url() -> str:
    return server_url("IOTFLOW_TEST_POSTGRES_URL")


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
async def either(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[SqlRegistry]:
    """On both, as both have to say the same."""
    path: Path = tmp_path_factory.mktemp("registry") / "registry.db"
    embedded = request.param == "sqlite"
    url = f"sqlite:///{path}" if embedded else server_url("IOTFLOW_TEST_POSTGRES_URL")
    async with opened(url) as registry:
        yield registry


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncGenerator[SqlRegistry]:
    registry = SqlRegistry(url, **options)
    await registry.open()
    try:
        yield registry
    finally:
        await registry.close()


def new_key() -> NewKey:
    return NewKey(token_hex(32), "iotd_test")


async def new_device(registry: SqlRegistry, key: NewKey | None = None) -> Device:
    name = token_hex(8)
    user = await registry.create_user(NewUser(name, f"{name}@example.org", "hash"), NOW)
    return await registry.create_device(NewDevice(user.id, "thing"), key or new_key(), NOW)


class Proxy:
    """Passes bytes on to a server, counts what a client sends, and can stop answering."""

    def __init__(self, host: str, port: int) -> None:
        self.messages = 0
        self.connections = 0
        self._target = (host, port)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        self.thaw()
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def freeze(self) -> None:
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        for pipe in (
            self._pipe(reader, server_writer, counted=True),
            self._pipe(server_reader, writer, counted=False),
        ):
            self._tasks.add(asyncio.ensure_future(pipe))

    async def _pipe(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool
    ) -> None:
        try:
            while data := await reader.read(65_536):
                self.messages += counted
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        except (ConnectionError, OSError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def proxied(url: str) -> AsyncGenerator[tuple[Proxy, str]]:
    credentials, _, rest = url.partition("://")[2].partition("@")
    address, _, database = rest.partition("/")
    host, _, port = address.partition(":")
    proxy = Proxy(host, int(port or 5432))
    own_port = await proxy.start()
    try:
        yield proxy, f"postgresql://{credentials}@127.0.0.1:{own_port}/{database}"
    finally:
        await proxy.stop()


class TestRoundTrips:
    async def test_a_key_is_looked_up_in_one(self, url: str) -> None:
        key = new_key()
        async with proxied(url) as (proxy, through), opened(through, pool_size=1) as registry:
            device = await new_device(registry, key)
            await registry.key_record(key.digest, NOW)  # prepares the statement
            before = proxy.messages
            for _ in range(20):
                record = await registry.key_record(key.digest, NOW)
                assert record is not None
                assert record.device_id == device.id
            assert proxy.messages - before == 20


class TestBounds:
    async def test_without_a_free_connection_a_clear_word_and_no_harm(self, url: str) -> None:
        async with opened(url, pool_size=2) as registry:
            sleeping = [asyncio.ensure_future(sleep_on(registry, 3.0)) for _ in range(2)]
            await asyncio.sleep(0.1)
            with pytest.raises(OverloadedError):
                await registry.ping()
            await asyncio.gather(*sleeping)
            assert registry.breaker_state is BreakerState.CLOSED
            await registry.ping()

    async def test_a_server_that_stops_answering_is_given_up(self, url: str) -> None:
        loop = asyncio.get_running_loop()
        async with proxied(url) as (proxy, through), opened(through) as registry:
            await registry.ping()
            proxy.freeze()
            begun = loop.time()
            outcomes = await asyncio.gather(
                *(registry.user(1) for _ in range(30)), return_exceptions=True
            )
            assert loop.time() - begun < 10
            assert {type(outcome) for outcome in outcomes} <= {
                StoreUnavailableError,
                StoreBusyError,
            }
            assert registry.breaker_state is not BreakerState.CLOSED
            took_s: list[float] = []
            for _ in range(3):
                begun = loop.time()
                with pytest.raises(StoreUnavailableError):
                    await registry.user(1)
                took_s.append(loop.time() - begun)
            assert min(took_s) < 0.5, "a busy machine adds to some, a wait would add to all"
            proxy.thaw()
            await until_it_answers(registry)

    async def test_connections_that_the_server_ended_cost_no_call(self, url: str) -> None:
        async with opened(f"{url}?application_name=ended_idle", pool_size=3) as registry:
            await asyncio.gather(*(sleep_on(registry, 0.1) for _ in range(3)))
            plain = await asyncpg.connect(url, timeout=5)
            ended = await plain.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'ended_idle'"
            )
            await plain.close()
            assert len(ended) == 3
            await asyncio.sleep(0.2)
            await asyncio.gather(*(sleep_on(registry, 0.1) for _ in range(3)))
            await new_device(registry)

    async def test_a_statement_has_its_time_on_the_server_too(self, url: str) -> None:
        async with opened(f"{url}?statement_timeout=200") as registry:
            with pytest.raises(StoreUnavailableError):
                await sleep_on(registry, 5.0)
            await registry.ping()


class TestOldPrimaries:
    async def test_a_server_that_only_reads_by_now_is_left(self, url: str) -> None:
        """As a primary does that comes back as a standby and keeps its connections."""
        read_only = f"{url}?default_transaction_read_only=on"
        async with opened(read_only, pool_size=1) as registry:
            before = await server_process(registry)
            assert await server_process(registry) == before
            with pytest.raises(StoreUnavailableError):
                await registry.raise_cache_epoch()
            assert await server_process(registry) != before


async def server_process(registry: SqlRegistry) -> int:
    async with registry.reading() as connection:
        found: int = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    return found


async def sleep_on(registry: SqlRegistry, seconds: float) -> None:
    async with registry.reading() as connection:
        await connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})


async def until_it_answers(registry: SqlRegistry) -> None:
    async with asyncio.timeout(15):
        while True:
            try:
                await registry.ping()
            except (StoreUnavailableError, OverloadedError):
                await asyncio.sleep(0.1)
            else:
                return


class TestLocks:
    async def test_stamps_and_rotations_never_wait_in_a_circle(self, url: str) -> None:
        """Two replicas stamp the same devices in other orders, while keys are rotated."""
        async with opened(url) as one, opened(url) as other:
            devices = [await new_device(one) for _ in range(40)]
            keys = [device.key.id for device in devices if device.key is not None]

            async def stamp(registry: SqlRegistry, order: list[int], first_ms: int) -> None:
                for turn in range(30):
                    await registry.note_seen(dict.fromkeys(order, first_ms + turn * 2))

            async def rotate(registry: SqlRegistry) -> None:
                for device in devices:
                    await registry.rotate_key(device.id, new_key(), NOW, NOW)

            await asyncio.gather(
                stamp(one, keys, 1_767_225_600_000),
                stamp(other, keys[::-1], 1_767_225_600_001),
                rotate(one),
            )
            found = await other.device(devices[7].id)
            assert found is not None
            assert found.last_seen == datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=59)


class TestErrors:
    async def test_a_key_for_a_device_that_is_not_there(self, either: SqlRegistry) -> None:
        with pytest.raises(NotFoundError):
            await either.rotate_key(2**40, new_key(), NOW, NOW)

    async def test_a_device_for_a_user_who_is_not_there(self, either: SqlRegistry) -> None:
        key = new_key()
        with pytest.raises(NotFoundError):
            await either.create_device(NewDevice(2**40, "thing"), key, NOW)
        assert await either.key_record(key.digest, NOW) is None

    async def test_of_many_devices_one_without_a_user(self, either: SqlRegistry) -> None:
        mine = await new_device(either)
        keys = [new_key(), new_key()]
        new = [(NewDevice(mine.user_id, "a"), keys[0]), (NewDevice(2**40, "b"), keys[1])]
        with pytest.raises(NotFoundError):
            await either.create_devices(new, NOW)
        assert await either.key_record(keys[0].digest, NOW) is None

    async def test_a_session_of_a_user_who_is_not_there(self, either: SqlRegistry) -> None:
        token = NewRefreshToken(2**40, "family", token_hex(32), NOW + timedelta(days=1))
        with pytest.raises(NotFoundError):
            await either.add_refresh_token(token, NOW)

    @pytest.mark.parametrize("name", ["nul \0 in it", "half a pair \ud800"])
    async def test_a_value_that_cannot_be_held_is_no_outage(self, url: str, name: str) -> None:
        async with opened(url) as registry:
            device = await new_device(registry)
            for _ in range(10):
                with pytest.raises(ValueError, match="cannot hold"):
                    await registry.create_device(NewDevice(device.user_id, name), new_key(), NOW)
            with pytest.raises(ValueError, match="cannot hold"):
                await registry.user(2**63)
            assert registry.breaker_state is BreakerState.CLOSED
