"""The registry on SQLite and PostgreSQL, through SQLAlchemy Core."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from iotflow.errors import StoreUnavailableError
from iotflow.stores.migrations import migrate, schema_of
from iotflow.stores.registry import sql_devices, sql_epochs, sql_keys, sql_slots, sql_users
from iotflow.stores.sql import create_engine, reading, translated_errors


class SqlRegistry(
    sql_users.Users, sql_devices.Devices, sql_keys.Keys, sql_slots.Slots, sql_epochs.Epochs
):
    """Implements `Registry` (protocol.py) for a `sqlite:///` or `postgresql://` URL."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url)
        if schema := schema_of("registry", self._engine):
            self._engine = self._engine.execution_options(schema_translate_map={None: schema})
        self._read_engine = reading(self._engine)
        self._is_open = False

    @property
    def backend(self) -> str:
        return "postgres" if self._engine.dialect.name == "postgresql" else "sqlite"

    async def open(self) -> None:
        with translated_errors("registry"):
            await migrate("registry", self._engine)
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False
        await self._engine.dispose()

    async def ping(self) -> None:
        async with self.reading() as connection:
            await connection.execute(text("SELECT 1"))

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[AsyncConnection]:
        """A connection for statements that only read."""
        self._require_open()
        with translated_errors("registry"):
            async with self._read_engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[AsyncConnection]:
        """A transaction that commits at the end, or rolls back with the error."""
        self._require_open()
        with translated_errors("registry"):
            async with self._engine.begin() as connection:
                yield connection

    def _require_open(self) -> None:
        if not self._is_open:
            raise StoreUnavailableError("registry")
