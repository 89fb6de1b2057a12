"""The event store on MongoDB: its documents, its indexes, its bounds."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

import pytest
from bson.codec_options import CodecOptions
from pymongo import AsyncMongoClient

from iotflow.domain.events import Event
from iotflow.domain.times import MAX_TIMESTAMP_MS, TimeRange
from iotflow.errors import ConfigurationError, OverloadedError, StoreUnavailableError
from iotflow.stores.breaker import BreakerState
from iotflow.stores.events.mongo import MongoEventStore
from iotflow.stores.events.protocol import EventQuery
from tests.contract.servers import server_url
from tests.servers.own_server import OwnServers, own_servers

pytestmark = pytest.mark.servers

T0 = 1_767_225_600_000
EVER = TimeRange(0, MAX_TIMESTAMP_MS + 1)
AWAY = (StoreUnavailableError, OverloadedError)
DAY_S = 86_400

Plain = Any


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncGenerator[MongoEventStore]:
    store = MongoEventStore(url, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture(scope="module")
async def fresh() -> AsyncGenerator[tuple[str, Plain]]:
    """The URL of a database that nobody else uses, and a plain client's view of it."""
    server, _, _ = server_url("IOTFLOW_TEST_MONGODB_URL").rpartition("/")
    client: Any = AsyncMongoClient(server, serverSelectionTimeoutMS=2_000)
    name = f"test_{token_hex(4)}"
    aware: Any = CodecOptions(tz_aware=True)
    yield f"{server}/{name}", client.get_database(name, codec_options=aware)
    await client.drop_database(name)
    await client.close()


@pytest.fixture
async def store(fresh: tuple[str, Plain]) -> AsyncGenerator[MongoEventStore]:
    async with opened(fresh[0]) as store:
        yield store


@pytest.fixture
def plain(fresh: tuple[str, Plain]) -> Plain:
    return fresh[1]


def event(**details: Any) -> Event:
    return Event(token_hex(8), "telemetry.submitted", T0, 1, 2, details)


async def read(store: MongoEventStore, id: str) -> Event:
    found, _ = await store.query(EventQuery(EVER, 1_000))
    [event] = [event for event in found if event.id == id]
    return event


class TestDocuments:
    async def test_they_are_as_the_guide_says(self, store: MongoEventStore, plain: Plain) -> None:
        written = Event(
            token_hex(8),
            "telemetry.submitted",
            T0 + 123,
            1,
            2,
            {"measurements": ["temperature", "humidity"], "count": 2},
        )
        await store.append([written])
        assert await plain.events.find_one({"_id": written.id}) == {
            "_id": written.id,
            "event_type": "telemetry.submitted",
            "device_id": 2,
            "user_id": 1,
            "timestamp": datetime(2026, 1, 1, 0, 0, 0, 123_000, tzinfo=UTC),
            "details": {"measurements": ["temperature", "humidity"], "count": 2},
        }

    @pytest.mark.parametrize(
        "details",
        [
            {"big": 2**63, "small": -(2**63) - 1},
            {"half": "a pair \ud83c", "key \udf21": 1},
            {"nul\0key": 1},
            {"$ref": "a", "$id": 1},
            {"in": [{"$gt": 1}]},
            {"deep": __import__("json").loads("[" * 150 + "]" * 150)},
        ],
        ids=lambda details: ascii(next(iter(details))),
    )
    async def test_what_no_document_holds_is_kept_as_text(
        self, store: MongoEventStore, plain: Plain, details: dict[str, Any]
    ) -> None:
        odd, usual = event(**details), event(count=1)
        assert await store.append([usual, odd]) == 2
        assert repr((await read(store, odd.id)).details) == repr(details)
        document = await plain.events.find_one({"_id": odd.id})
        assert document["details"] == {}
        assert isinstance(document["details_json"], str)
        assert (await plain.events.find_one({"_id": usual.id}))["details"] == {"count": 1}

    @pytest.mark.parametrize(
        "odd",
        [
            Event("half \ud800", "t", T0, None, None, {}),
            Event("x", "t", T0, 2**63, None, {}),
            Event("x", "t", 2**63, None, None, {}),
            Event("x", "t", T0, None, None, {"large": "x" * 16_000_000}),
        ],
        ids=["id", "user", "time", "size"],
    )
    async def test_an_event_that_cannot_be_stored_is_no_outage(
        self, store: MongoEventStore, odd: Event
    ) -> None:
        for _ in range(8):
            with pytest.raises(ValueError):  # noqa: PT011, its kind is the promise
                await store.append([event(), odd])
        assert store.breaker_state is BreakerState.CLOSED


class TestIndexes:
    async def test_there_is_one_for_each_question(
        self, store: MongoEventStore, plain: Plain
    ) -> None:
        newest_first = [("timestamp", -1), ("_id", -1)]
        for collection, fields in (
            ("events", ["device_id", "event_type", "user_id"]),
            ("alerts", ["device_id", "alert_type", "user_id"]),
        ):
            found = await plain[collection].index_information()
            keys = [index["key"] for index in found.values()]
            for wanted in [newest_first, *([(field, 1), *newest_first] for field in fields)]:
                assert wanted in keys

    async def test_events_live_as_long_as_the_policy_says(self, fresh: tuple[str, Plain]) -> None:
        url, plain = fresh
        for retention_s in (None, 30 * DAY_S, 30 * DAY_S, 7 * DAY_S, None, DAY_S, None):
            async with opened(url, retention_s=retention_s):
                found = await plain.events.index_information()
                lives = [
                    i["expireAfterSeconds"] for i in found.values() if "expireAfterSeconds" in i
                ]
                assert lives == ([] if retention_s is None else [retention_s])

    async def test_several_open_at_once(self, fresh: tuple[str, Plain]) -> None:
        stores = [MongoEventStore(fresh[0], retention_s=DAY_S) for _ in range(4)]
        await asyncio.gather(*(store.open() for store in stores))
        written = event()
        assert await stores[0].append([written]) == 1
        assert await stores[1].append([written]) == 0
        lives = [i for i in (await fresh[1].events.index_information()).values() if len(i) > 2]
        assert [i.get("expireAfterSeconds") for i in lives if "expireAfterSeconds" in i] == [DAY_S]
        for store in stores:
            await store.close()


class TestUrls:
    async def test_one_that_cannot_be_read(self) -> None:
        with pytest.raises(ConfigurationError, match="mongodb://"):
            await MongoEventStore("mongodb://host:port:1/x").open()

    async def test_options_in_the_url_win(self, fresh: tuple[str, Plain]) -> None:
        async with opened(f"{fresh[0]}?w=1&serverSelectionTimeoutMS=1234") as store:
            assert await store.append([event()]) == 1

    async def test_without_a_database_it_is_named_after_the_product(
        self, fresh: tuple[str, Plain]
    ) -> None:
        server, _, _ = fresh[0].rpartition("/")
        written = event()
        async with opened(f"{server}/") as store:
            await store.append([written])
            found = await fresh[1].client.iotflow.events.find_one({"_id": written.id})
            await fresh[1].client.iotflow.events.delete_one({"_id": written.id})
        assert found is not None


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServers]:
    with own_servers(tmp_path_factory.mktemp("mongodb"), 2400, "mongodb") as servers:
        yield servers


@pytest.fixture(scope="module")
def own_url(servers: OwnServers) -> str:
    return servers.start()["IOTFLOW_EVENTS__URL"]


async def until_it_answers(call: Callable[[], Awaitable[object]], within_s: float = 20) -> None:
    async with asyncio.timeout(within_s):
        while True:
            try:
                await call()
            except AWAY:
                await asyncio.sleep(0.1)
            else:
                return


async def seconds_of(call: Awaitable[object]) -> float:
    """How long a call takes to say that the server is away."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with pytest.raises(AWAY):
        await call
    return loop.time() - begun


class TestFaults:
    async def test_killed_it_says_so_soon_and_comes_back_by_itself(
        self, servers: OwnServers, own_url: str
    ) -> None:
        async with opened(own_url) as store:
            first, again = event(number=1), event(number=2)
            await store.append([first])
            await asyncio.to_thread(servers.kill, "mongodb")
            times = [seconds_of(store.query(EventQuery(EVER, 1))) for _ in range(200)]
            assert max(await asyncio.gather(*times, seconds_of(store.append([again])))) < 8
            assert await seconds_of(store.append([again])) < 2
            await asyncio.to_thread(servers.start)
            await until_it_answers(lambda: store.append([again]))
            assert await read(store, again.id) == again

    async def test_frozen_it_says_so_in_time_and_goes_on_afterwards(
        self, servers: OwnServers, own_url: str
    ) -> None:
        async with opened(own_url) as store:
            await store.append([event()])
            await asyncio.sleep(1.5)  # the stand-in writes its file
            late = event(number=3)
            with servers.frozen("mongodb"):
                times = [seconds_of(store.query(EventQuery(EVER, 1))) for _ in range(50)]
                assert max(await asyncio.gather(*times, seconds_of(store.append([late])))) < 9
                times = [seconds_of(store.append([late])) for _ in range(10)]
                assert max(await asyncio.gather(*times)) < 9
            await until_it_answers(lambda: store.append([late]))
            # It may have been stored while nobody waited: once, and as it was.
            assert await store.append([late]) == 0
            assert await read(store, late.id) == late

    async def test_it_opens_once_its_server_is_there(
        self, servers: OwnServers, own_url: str
    ) -> None:
        await asyncio.to_thread(servers.kill, "mongodb")
        store = MongoEventStore(own_url)
        assert await seconds_of(store.open()) < 4
        assert await seconds_of(store.ping()) < 1
        await asyncio.to_thread(servers.start)
        await until_it_answers(store.open)
        await store.append([event()])
        await store.close()
