"""`iotflow migrate` and `iotflow admin`: what works on the stores without a server."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from iotflow.accounts.passwords import Passwords
from iotflow.accounts.schemas import PasswordChange, Registration
from iotflow.domain.secrets import INVITATION_PREFIX, new_secret
from iotflow.domain.users import UserRole
from iotflow.errors import InvalidInputError, NotFoundError
from iotflow.settings import Role, Settings
from iotflow.stores.migrations import current_revision, migrate
from iotflow.stores.registry.protocol import NewInvitation, NewUser
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


def reset_password(username: str, password: str, data_dir: Path | None) -> None:
    """Replace an account's password; its sessions and personal tokens end.

    Raises:
        InvalidInputError: the password is not acceptable.
        NotFoundError: there is no such account.
    """
    try:
        PasswordChange(current_password="-", new_password=password)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise InvalidInputError(f"password: {first['msg']}") from None
    name = asyncio.run(_reset(username, password, load_settings(data_dir)))
    print(f"{name} has a new password; all sessions and tokens have ended.")  # noqa: T201


async def _reset(username: str, password: str, settings: Settings) -> str:
    registry, passwords = SqlRegistry(settings.store_url("registry")), Passwords()
    try:
        await registry.open()
        found = await registry.credentials(username)
        if found is None:
            raise NotFoundError("There is no such account.")
        user, _ = found
        hashed = await passwords.hash(password)
        await registry.set_password(user.id, hashed, None, datetime.now(UTC))
        return user.username
    finally:
        passwords.close()
        await registry.close()


def invite(hours: int | None, data_dir: Path | None) -> None:
    """Make an invitation and print it, alone on its line."""
    settings = load_settings(data_dir)
    lifetime_s = settings.accounts.invitation_s if hours is None else hours * 3600
    print(asyncio.run(_invite(lifetime_s, settings)))  # noqa: T201


async def _invite(lifetime_s: int, settings: Settings) -> str:
    registry, now = SqlRegistry(settings.store_url("registry")), datetime.now(UTC)
    secret = new_secret(INVITATION_PREFIX)
    try:
        await registry.open()
        new = NewInvitation(secret.digest, None, now + timedelta(seconds=lifetime_s))
        await registry.add_invitation(new, now)
        return secret.secret
    finally:
        await registry.close()


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
