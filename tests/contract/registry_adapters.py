"""The registries that the contract suite runs on. Another adapter is one more entry."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy import delete, update

from iotflow.stores.registry.models import devices, users, worker_slots
from iotflow.stores.registry.protocol import Registry
from iotflow.stores.registry.sql import SqlRegistry
from tests.contract.servers import servers
from tests.servers.stores import fresh_database


class RegistryHarness(Protocol):
    """An open registry, and what tests must be able to do to it from outside.

    Names, addresses and digests of the tests are fresh, so a server may be shared.
    """

    store: Registry

    def unopened(self) -> Registry:
        """Another adapter on the same storage, that was never opened."""
        ...

    async def free_slots(self) -> None:
        """Forget every lease."""
        ...

    async def delete_user(self, user_id: int) -> None:
        """Delete a user with all devices and keys."""
        ...

    async def deactivate(self, *, user_id: int | None = None, device_id: int | None = None) -> None:
        """Make a user or a device inactive."""
        ...


@dataclass
class SqlHarness:
    url: str

    def __post_init__(self) -> None:
        self.store = self.unopened()

    def unopened(self) -> SqlRegistry:
        return SqlRegistry(self.url)

    async def free_slots(self) -> None:
        async with self.store.writing() as connection:
            await connection.execute(delete(worker_slots))

    async def delete_user(self, user_id: int) -> None:
        async with self.store.writing() as connection:
            await connection.execute(delete(users).where(users.c.id == user_id))

    async def deactivate(self, *, user_id: int | None = None, device_id: int | None = None) -> None:
        async with self.store.writing() as connection:
            await connection.execute(
                update(users).where(users.c.id == user_id).values(is_active=False)
            )
            await connection.execute(
                update(devices).where(devices.c.id == device_id).values(status="inactive")
            )


@asynccontextmanager
async def sqlite(directory: Path) -> AsyncGenerator[RegistryHarness]:
    async with _opened(SqlHarness(f"sqlite:///{directory}/registry.db")) as harness:
        yield harness


@asynccontextmanager
async def postgres(_directory: Path) -> AsyncGenerator[RegistryHarness]:
    # One of its own: a job that was left behind would be claimed before the test's.
    with fresh_database() as url:
        async with _opened(SqlHarness(url)) as harness:
            yield harness


@asynccontextmanager
async def _opened(harness: SqlHarness) -> AsyncGenerator[SqlHarness]:
    await harness.store.open()
    try:
        yield harness
    finally:
        await harness.store.close()


Start = Callable[[Path], AbstractAsyncContextManager[RegistryHarness]]

ADAPTERS = [
    pytest.param(sqlite, id="sqlite"),
    pytest.param(postgres, id="postgres", marks=servers),
]
