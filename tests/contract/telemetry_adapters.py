"""The telemetry adapters that the contract suite runs on. Another adapter is one more entry."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from iotflow.stores.telemetry.protocol import TelemetryStore
from iotflow.stores.telemetry.sqlite import SqliteTelemetryStore


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


Start = Callable[[Path], AbstractAsyncContextManager[TelemetryHarness]]

# One on a server: pytest.param(start, id="…", marks=servers), its URL by `server_url` (servers.py).
ADAPTERS = [pytest.param(sqlite, id="sqlite")]
