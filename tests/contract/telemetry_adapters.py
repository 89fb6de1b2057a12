"""The telemetry adapters that the contract suite runs on. Another adapter is one more entry."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from iotflow.stores.telemetry.cassandra import CassandraTelemetryStore
from iotflow.stores.telemetry.postgres import PostgresTelemetryStore
from iotflow.stores.telemetry.protocol import TelemetryStore
from iotflow.stores.telemetry.sqlite import SqliteTelemetryStore
from tests.contract.servers import server_url, servers


class TelemetryHarness(Protocol):
    """An open store. Devices of the tests are fresh, so a server may be shared."""

    store: TelemetryStore
    shadows: bool
    """Whether a range delete also hides what arrives after it with an older mark."""
    counts: bool
    """Whether a delete knows how many points it deleted."""

    def unopened(self) -> TelemetryStore:
        """Another adapter on the same storage, that was never opened."""
        ...


@dataclass
class SqliteHarness:
    path: Path
    shadows: bool = False
    counts: bool = True

    def __post_init__(self) -> None:
        self.store = self.unopened()

    def unopened(self) -> SqliteTelemetryStore:
        return SqliteTelemetryStore(self.path)


@asynccontextmanager
async def sqlite(directory: Path) -> AsyncGenerator[TelemetryHarness]:
    harness = SqliteHarness(directory / "telemetry.db")
    await harness.store.open()
    try:
        yield harness
    finally:
        await harness.store.close()


@dataclass
class PostgresHarness:
    url: str
    shadows: bool = False
    counts: bool = True

    def __post_init__(self) -> None:
        self.store = self.unopened()

    def unopened(self) -> PostgresTelemetryStore:
        return PostgresTelemetryStore(self.url)


@asynccontextmanager
async def postgres(_directory: Path) -> AsyncGenerator[TelemetryHarness]:
    harness = PostgresHarness(server_url("IOTFLOW_TEST_POSTGRES_URL"))
    await harness.store.open()
    try:
        yield harness
    finally:
        await harness.store.close()


@dataclass
class CassandraHarness:
    url: str
    shadows: bool = True
    counts: bool = False

    def __post_init__(self) -> None:
        self.store = self.unopened()

    def unopened(self) -> CassandraTelemetryStore:
        return CassandraTelemetryStore(self.url)


@asynccontextmanager
async def cassandra(_directory: Path) -> AsyncGenerator[TelemetryHarness]:
    harness = CassandraHarness(server_url("IOTFLOW_TEST_CASSANDRA_URL"))
    await harness.store.open()
    try:
        yield harness
    finally:
        await harness.store.close()


Start = Callable[[Path], AbstractAsyncContextManager[TelemetryHarness]]

# One on a server: pytest.param(start, id="…", marks=servers), its URL by `server_url` (servers.py).
ADAPTERS = [
    pytest.param(sqlite, id="sqlite"),
    pytest.param(postgres, id="postgres", marks=servers),
    pytest.param(cassandra, id="cassandra", marks=servers),
]

SHARED = [adapter for adapter in ADAPTERS if adapter.id != "sqlite"]
"""Those that several may have open at once; a SQLite file belongs to one process."""
