"""Schema migrations of the SQL stores, for SQLite and PostgreSQL alike.

Each role has its own line of revisions (alembic/versions/<role>/), its own SQLite file, or
its own schema with its own version table on PostgreSQL. A revision is named as its file.
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from sqlalchemy import Column, Connection, MetaData, String, Table, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

if TYPE_CHECKING:
    from alembic.config import Config

# One number for all roles: two processes that migrate at once wait for each other.
_ADVISORY_LOCK = 0x10F10
# Migrations reach their connection through `alembic.op`, which is global to the process, so the
# stores of one process take turns.
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


def _one_at_a_time() -> asyncio.Lock:
    return _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())


def migrations_dir() -> Path:
    """Where the migrations lie: inside the installed package, or in the source tree."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parents[1] / "alembic"


def head_revision(role: str) -> str:
    """The newest revision of a role, read off the file names so that a start needs no Alembic."""
    return max(path.stem for path in (migrations_dir() / "versions" / role).glob("[0-9]*.py"))


def schema_of(role: str, engine: AsyncEngine) -> str | None:
    """The PostgreSQL schema of a role; SQLite has none."""
    return role if engine.dialect.name == "postgresql" else None


async def migrate(role: str, engine: AsyncEngine) -> bool:
    """Bring a role's schema to the newest revision; returns whether there was anything to do.

    Safe when several processes start at once. On PostgreSQL under an advisory lock, on SQLite
    under the write lock that the engine's transactions take.
    """
    if await current_revision(role, engine) == head_revision(role):
        return False
    async with _one_at_a_time(), engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            # With enforcement on, rebuilding a table would delete its children's rows.
            raw = await connection.get_raw_connection()
            await raw.driver_connection.execute("PRAGMA foreign_keys=OFF")  # pyright: ignore[reportOptionalMemberAccess]
        async with connection.begin():
            await connection.run_sync(_upgrade, role, schema_of(role, engine))
        if engine.dialect.name == "sqlite":
            raw = await connection.get_raw_connection()
            await raw.driver_connection.execute("PRAGMA foreign_keys=ON")  # pyright: ignore[reportOptionalMemberAccess]
    return True


async def current_revision(role: str, engine: AsyncEngine) -> str | None:
    """The revision that a role's schema has, or None where there is none yet."""
    schema = schema_of(role, engine)
    version = Table("alembic_version", MetaData(schema), Column("version_num", String))
    async with engine.connect() as connection:
        try:
            return (await connection.execute(select(version.c.version_num))).scalar()
        except DBAPIError:
            return None


def _upgrade(connection: Connection, role: str, schema: str | None) -> None:
    from alembic import command

    if schema is not None:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
        connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
        connection.execute(text(f'SET LOCAL search_path TO "{schema}"'))
    config = alembic_config(role)
    config.attributes.update(connection=connection, schema=schema)
    command.upgrade(config, "head")


def alembic_config(role: str) -> "Config":
    """Alembic's configuration for one role's line of revisions."""
    from alembic.config import Config

    root = migrations_dir()
    config = Config()
    config.set_main_option("script_location", str(root))
    config.set_main_option("version_locations", str(root / "versions" / role))
    config.set_main_option("path_separator", "os")
    return config
