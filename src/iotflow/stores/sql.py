"""Engines for the stores that speak SQL through SQLAlchemy."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from iotflow.errors import StoreUnavailableError

SQLITE_BUSY_TIMEOUT_MS = 5_000


def sqlite_path(url: str) -> Path:
    """The file of a `sqlite:///` URL."""
    return Path(make_url(url).database or "")


def create_engine(url: str, *, synchronous: str = "FULL", pool_size: int = 10) -> AsyncEngine:
    """An engine for a `sqlite:///` or `postgresql://` URL.

    `synchronous` is SQLite's: FULL survives a power cut, NORMAL may lose the last commits
    to one (never to a killed process).
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _create_sqlite_engine(parsed, synchronous)
    return create_async_engine(
        parsed.set(drivername="postgresql+asyncpg"),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=2,
        pool_pre_ping=True,
    )


def reading(engine: AsyncEngine) -> AsyncEngine:
    """The same pool for statements that only read: no write lock, no transaction round trips."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(iotflow_read_only=True)
    return engine.execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def translated_errors(role: str) -> Generator[None]:
    """Turn what a driver raises while its server is away into StoreUnavailableError.

    Integrity errors pass: they are answers, not failures.
    """
    try:
        yield
    except IntegrityError:
        raise
    except (SQLAlchemyError, OSError) as error:
        raise StoreUnavailableError(role) from error


def _create_sqlite_engine(url: URL, synchronous: str) -> AsyncEngine:
    sqlite_path(url.render_as_string()).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite"), pool_size=4, max_overflow=0
    )

    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver opens no transactions; SQLAlchemy does
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={SQLITE_BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            f"synchronous={synchronous}",
            "foreign_keys=ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def begin(connection: Any) -> None:
        # A deferred transaction that reads first and writes later can lose its update.
        read_only = connection.get_execution_options().get("iotflow_read_only", False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    event.listen(engine.sync_engine, "connect", prepare)
    event.listen(engine.sync_engine, "begin", begin)
    return engine
