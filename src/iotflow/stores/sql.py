"""Engines for the stores that speak SQL through SQLAlchemy."""

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy import Table, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    DisconnectionError,
    IntegrityError,
    ProgrammingError,
    SQLAlchemyError,
    StatementError,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from iotflow.errors import StoreUnavailableError
from iotflow.stores import sqlite_connection
from iotflow.stores.breaker import Breaker
from iotflow.stores.calls import Calls
from iotflow.stores.migrations import migrate, schema_of
from iotflow.stores.postgres import is_callers_fault, target_of
from iotflow.stores.sql_statistics import (
    pool_statistics,
    postgres_statistics,
    queries,
    sqlite_statistics,
)
from iotflow.stores.statistics import Statistic

SQLITE_BUSY_TIMEOUT_MS = 5_000

_POOL_SIZE = 10
_CALL_S = 5.0
_READ_ONLY = "25006"


def sqlite_path(url: str) -> Path:
    """The file of a `sqlite:///` URL."""
    return Path(make_url(url).database or "")


def is_postgres(url: str) -> bool:
    return url.startswith("postgresql:")


def inserting(table: Table, dialect: str) -> Any:
    """An INSERT that takes an ON CONFLICT. Of the dialects only those that are used are loaded."""
    return import_module(f"sqlalchemy.dialects.{dialect}").insert(table)


def create_engine(
    url: str, *, synchronous: str = "FULL", pool_size: int = _POOL_SIZE, patient: bool = False
) -> AsyncEngine:
    """An engine for a `sqlite:///` or `postgresql://` URL (stores/postgres.py).

    `synchronous` is SQLite's: FULL survives a power cut, NORMAL may lose the last commits
    to one (never to a killed process). `patient` lifts PostgreSQL's time limit on a statement.
    """
    if is_postgres(url):
        return _create_postgres_engine(url, pool_size, patient)
    return _create_sqlite_engine(make_url(url), synchronous)


def reading(engine: AsyncEngine) -> AsyncEngine:
    """The same pool for statements that only read: no write lock, no transaction round trips."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(iotflow_read_only=True)
    return engine.execution_options(isolation_level="AUTOCOMMIT")


async def migrated(role: str, url: str) -> None:
    """Bring a role's schema to the newest revision, over a connection of its own.

    Raises:
        StoreUnavailableError: the server does not answer, or the file cannot be there.
    """
    with translated_errors(role):
        engine = create_engine(url, pool_size=1, patient=True)
        try:
            await migrate(role, engine)
        finally:
            await engine.dispose()


class Database:
    """A role's tables: transactions, and reads outside of any, with errors translated.

    Calls to PostgreSQL are bounded in number and in time, behind a breaker. SQLite is a file of
    this process: it has its own time limit for locks, and nothing that could be away for a while.
    """

    def __init__(
        self, role: str, url: str, *, synchronous: str = "FULL", pool_size: int = _POOL_SIZE
    ) -> None:
        self.breaker = Breaker(role)
        self._role = role
        self._url = url
        self._pool_size = pool_size
        engine = create_engine(url, synchronous=synchronous, pool_size=pool_size)
        if schema := schema_of(role, engine):
            engine = engine.execution_options(schema_translate_map={None: schema})
        self._engine = engine
        # Behind pgbouncer, which deals out a server connection for each transaction, a statement
        # outside of any could be prepared on one and executed on another.
        pgbouncer = is_postgres(url) and target_of(url).pgbouncer
        self._read_engine = engine if pgbouncer else reading(engine)
        self._calls = (
            Calls(self.breaker, size=pool_size, limit_s=_CALL_S) if is_postgres(url) else None
        )
        self._is_open = False

    @property
    def is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    @property
    def backend(self) -> str:
        return "sqlite" if self.is_sqlite else "postgres"

    async def open(self) -> None:
        await migrated(self._role, self._url)
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False
        await self._engine.dispose()

    async def statistics(self) -> list[Statistic]:
        """Of the file, or of the server and the pool of connections to it."""
        if self.is_sqlite:
            return await sqlite_statistics(sqlite_path(self._url))
        answers = [await self._told(query) for query in queries(self._role)]
        pool: Any = self._engine.sync_engine.pool
        counts = pool.checkedout(), pool.checkedin(), self._pool_size
        return [*postgres_statistics(answers), *pool_statistics(*counts)]

    async def _told(self, query: str) -> list[Any]:
        """Nothing where the server does not let us see it."""
        async with self.reading() as connection:
            try:
                return list((await connection.execute(text(query))).all())
            except ProgrammingError:
                return []

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[AsyncConnection]:
        """A connection for statements that only read."""
        async with self._call():
            # Left as a context manager it would be closed by a task of its own, and be kept from
            # others until that has its turn.
            connection = await self._read_engine.connect()
            try:
                yield connection
            finally:
                await connection.close()

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[AsyncConnection]:
        """A transaction that commits at the end, or rolls back with the error."""
        async with self._call(), self._engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def _call(self) -> AsyncGenerator[None]:
        if not self._is_open:
            raise StoreUnavailableError(self._role)
        if self._calls is None:
            with translated_errors(self._role):
                yield
            return
        async with self._calls.one():
            with translated_errors(self._role):
                yield


@contextmanager
def translated_errors(role: str) -> Generator[None]:
    """Turn what a driver raises while its server is away into StoreUnavailableError.

    Integrity errors pass: they are answers, not failures. What the caller's values are to blame
    for is a ValueError: whoever waited for a server to get better would wait for ever.
    """
    try:
        yield
    except IntegrityError:
        raise
    except SQLAlchemyError as error:
        if isinstance(error, StatementError) and is_callers_fault(error):
            raise ValueError("a value that the database cannot hold") from error
        raise StoreUnavailableError(role) from error
    except OSError as error:
        raise StoreUnavailableError(role) from error


def _create_postgres_engine(url: str, pool_size: int, patient: bool) -> AsyncEngine:
    from iotflow.stores.postgres_driver import connector

    arguments: dict[str, Any] = {"async_creator_fn": connector(url, patient=patient)}
    if target_of(url).pgbouncer:
        # A statement without a name lives until the next one: none is left to other sessions.
        arguments |= {
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: "",
        }
    engine = create_async_engine(
        "postgresql+asyncpg://",
        connect_args=arguments,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=2,
    )
    event.listen(engine.sync_engine, "checkout", _refuse_lost)
    event.listen(engine.sync_engine, "handle_error", _leave_old_primary)
    return engine


def _refuse_lost(connection: Any, _record: object, _proxy: object) -> None:
    # The driver knows of a connection that the server has ended. So a restart costs those in
    # flight alone, as with a ping before each use, but without its round trip.
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def _leave_old_primary(context: Any) -> None:
    """After a failover the old primary may live on as a standby: all connections are made anew."""
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
        context.is_disconnect = True


def _create_sqlite_engine(url: URL, synchronous: str) -> AsyncEngine:
    path = sqlite_path(url.render_as_string())
    path.parent.mkdir(parents=True, exist_ok=True)
    # Each connection has a cache of its own: the last one used first, so that few are filled.
    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite"),
        async_creator=partial(sqlite_connection.connect, path),
        pool_size=4,
        max_overflow=0,
        pool_use_lifo=True,
    )

    def prepare(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={SQLITE_BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            f"synchronous={synchronous}",
            "cache_size=-512",  # KiB; the pages are in the system's cache, too
            "foreign_keys=ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def begin(connection: Any) -> None:
        # A deferred transaction that reads first and writes later can lose its update. Statements
        # that only read need none, and no change of thread.
        if not connection.get_execution_options().get("iotflow_read_only", False):
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine.sync_engine, "connect", prepare)
    event.listen(engine.sync_engine, "begin", begin)
    return engine
