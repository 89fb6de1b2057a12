"""The registry on SQLite and PostgreSQL, through SQLAlchemy Core."""

from contextlib import AbstractAsyncContextManager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from iotflow.stores.breaker import BreakerState
from iotflow.stores.registry import (
    sql_configs,
    sql_counts,
    sql_deletions,
    sql_devices,
    sql_epochs,
    sql_groups,
    sql_jobs,
    sql_keys,
    sql_slots,
    sql_tokens,
    sql_users,
)
from iotflow.stores.registry.sqlite_keys import SqliteKeys
from iotflow.stores.registry.together import Together
from iotflow.stores.sql import Database, is_postgres, sqlite_path
from iotflow.stores.statistics import Statistic


class SqlRegistry(
    sql_users.Users,
    sql_tokens.Tokens,
    sql_counts.Counts,
    sql_devices.Devices,
    sql_keys.Keys,
    sql_groups.Groups,
    sql_configs.Configs,
    sql_deletions.Deletions,
    sql_jobs.Jobs,
    sql_slots.Slots,
    sql_epochs.Epochs,
):
    """Implements `Registry` (protocol/) for a `sqlite:///` or `postgresql://` URL.

    On PostgreSQL at most `pool_size` calls run at once, each on a connection for itself;
    further ones wait for a short while and then raise StoreBusyError.
    """

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self._database = Database("registry", url, pool_size=pool_size)
        self._file_keys = None if is_postgres(url) else SqliteKeys(sqlite_path(url))
        self._lookups = self._file_keys or Together(self.key_records)

    @property
    def backend(self) -> str:
        return self._database.backend

    @property
    def breaker_state(self) -> BreakerState:
        return self._database.breaker.state

    async def open(self) -> None:
        await self._database.open()
        if self._file_keys is not None:
            self._file_keys.open()

    async def close(self) -> None:
        if self._file_keys is not None:
            self._file_keys.close()
        await self._database.close()

    async def statistics(self) -> list[Statistic]:
        return await self._database.statistics()

    async def ping(self) -> None:
        async with self.reading() as connection:
            await connection.execute(text("SELECT 1"))

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection for statements that only read."""
        return self._database.reading()

    def writing(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that commits at the end, or rolls back with the error."""
        return self._database.writing()
