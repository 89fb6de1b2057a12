"""`iotflow migrate` and `iotflow admin`: what works on the stores without a server."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from iotflow.accounts.passwords import Passwords
from iotflow.accounts.schemas import Registration
from iotflow.domain.users import UserRole
from iotflow.errors import InvalidInputError
from iotflow.settings import Role, Settings
from iotflow.stores.migrations import current_revision, migrate
from iotflow.stores.registry.protocol import NewUser
from iotflow.stores.registry.sql import SqlRegistry
from iotflow.stores.sql import create_engine, translated_errors

_SQL_ROLES: tuple[Role, ...] = ("registry", "telemetry", "events")


def load_settings(data_dir: Path | None) -> Settings:
    return Settings.load() if data_dir is None else Settings.load(data_dir=data_dir)


def migrate_stores(data_dir: Path | None) -> None:
    """Bring the SQL stores to the newest revision, and say what was done."""
    settings = load_settings(data_dir)
    for role in _SQL_ROLES:
        url = settings.store_url(role)
        if url.startswith(("sqlite:", "postgresql:")):
            print(asyncio.run(_migrate(role, url)))  # noqa: T201


async def _migrate(role: str, url: str) -> str:
    engine = create_engine(url)
    try:
        with translated_errors(role):
            changed = await migrate(role, engine)
            revision = await current_revision(role, engine)
    finally:
        await engine.dispose()
    return f"{role}: {'migrated to' if changed else 'is at'} {revision}"


def create_admin(username: str, email: str, password: str, data_dir: Path | None) -> None:
    """Create an admin's account.

    Raises:
        InvalidInputError: the name, address or password is not acceptable.
        ConflictError: the name or address is taken.
    """
    try:
        wanted = Registration(username=username, email=email, password=password)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise InvalidInputError(f"{first['loc'][0]}: {first['msg']}") from None
    settings = load_settings(data_dir)
    user_id = asyncio.run(_create(wanted, settings))
    print(f"Created admin {username} (user {user_id}).")  # noqa: T201


async def _create(wanted: Registration, settings: Settings) -> int:
    registry, passwords = SqlRegistry(settings.store_url("registry")), Passwords()
    try:
        await registry.open()
        hashed = await passwords.hash(wanted.password)
        new = NewUser(wanted.username, wanted.email, hashed, UserRole.ADMIN)
        return (await registry.create_user(new, datetime.now(UTC))).id
    finally:
        passwords.close()
        await registry.close()
