"""The event stores that the contract suite runs on. Another adapter is one more entry."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from iotflow.stores.events.mongo import MongoEventStore
from iotflow.stores.events.protocol import EventStore
from iotflow.stores.events.sql import SqlEventStore
from tests.contract.servers import server_url, servers
from tests.servers.stores import fresh_mongo


class EventsHarness(Protocol):
    """An open store. Ids, users and devices of the tests are fresh, so a server may be shared."""

    store: EventStore

    def unopened(self) -> EventStore:
        """Another adapter on the same storage, that was never opened."""
        ...


@dataclass
class SqlHarness:
    url: str

    def __post_init__(self) -> None:
        self.store = self.unopened()

    def unopened(self) -> SqlEventStore:
        return SqlEventStore(self.url)


@asynccontextmanager
async def sqlite(directory: Path) -> AsyncGenerator[EventsHarness]:
    async with _opened(SqlHarness(f"sqlite:///{directory}/events.db")) as harness:
        yield harness


@asynccontextmanager
async def sqlite_indexed_at_once(directory: Path) -> AsyncGenerator[EventsHarness]:
    """Its indexes take every few events, which they else would take by the thousand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iotflow.stores.events.sql.sqlite._LONGEST_TAIL", 3)
        async with sqlite(directory) as harness:
            yield harness


@asynccontextmanager
async def postgres(_directory: Path) -> AsyncGenerator[EventsHarness]:
    async with _opened(SqlHarness(server_url("IOTFLOW_TEST_POSTGRES_URL"))) as harness:
        yield harness


@dataclass
class MongoHarness:
    url: str

    def __post_init__(self) -> None:
        self.store = self.unopened()

    def unopened(self) -> MongoEventStore:
        return MongoEventStore(self.url)


@asynccontextmanager
async def mongodb(_directory: Path) -> AsyncGenerator[EventsHarness]:
    # One of its own: the stand-in grows slower with every event that runs before left behind.
    # As long as the store waits: the contract is not about how quick a server is.
    with fresh_mongo() as url:
        async with _opened(MongoHarness(f"{url}?socketTimeoutMS=6000")) as harness:
            yield harness


@asynccontextmanager
async def _opened(harness: EventsHarness) -> AsyncGenerator[EventsHarness]:
    await harness.store.open()
    try:
        yield harness
    finally:
        await harness.store.close()


Start = Callable[[Path], AbstractAsyncContextManager[EventsHarness]]

ADAPTERS = [
    pytest.param(sqlite, id="sqlite"),
    pytest.param(sqlite_indexed_at_once, id="sqlite-indexed-at-once"),
    pytest.param(postgres, id="postgres", marks=servers),
    pytest.param(mongodb, id="mongodb", marks=servers),
]
