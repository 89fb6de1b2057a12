"""`iotflow migrate` and `iotflow admin`: what works on the stores without a server."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from pydantic import ValidationError

from iotflow.accounts.passwords import Passwords
from iotflow.accounts.schemas import PasswordChange, Registration
from iotflow.domain.events import Event
from iotflow.domain.secrets import INVITATION_PREFIX, new_secret
from iotflow.domain.times import to_ms
from iotflow.domain.users import UserRole
from iotflow.errors import InvalidInputError, NotFoundError, StoreUnavailableError
from iotflow.runtime.stores import create_event_store
from iotflow.settings import Role, Settings
from iotflow.stores.events.protocol import EventStore
from iotflow.stores.migrations import current_revision, migrate
from iotflow.stores.registry.protocol import NewInvitation, NewUser, Registry
from iotflow.stores.registry.sql import SqlRegistry
from iotflow.stores.sql import create_engine, translated_errors

COMMAND_LINE = "command line"
"""Who did it, in events; those of the API name a user's id there."""

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
    async with _operating(settings) as operator, _hashing() as passwords:
        found = await operator.registry.credentials(username)
        if found is None:
            raise NotFoundError("There is no such account.")
        user, _ = found
        hashed = await passwords.hash(password)
        await operator.registry.set_password(user.id, hashed, None, operator.now())
        operator.note("user.password_changed", user.id)
        return user.username


def invite(hours: int | None, data_dir: Path | None) -> None:
    """Make an invitation and print it, alone on its line."""
    settings = load_settings(data_dir)
    lifetime_s = settings.accounts.invitation_s if hours is None else hours * 3600
    print(asyncio.run(_invite(lifetime_s, settings)))  # noqa: T201


async def _invite(lifetime_s: int, settings: Settings) -> str:
    secret = new_secret(INVITATION_PREFIX)
    async with _operating(settings) as operator:
        now = operator.now()
        new = NewInvitation(secret.digest, None, now + timedelta(seconds=lifetime_s))
        invitation = await operator.registry.add_invitation(new, now)
        operator.note("invitation.created", None, invitation_id=str(invitation.id))
    return secret.secret


async def _create(wanted: Registration, settings: Settings) -> int:
    async with _operating(settings) as operator, _hashing() as passwords:
        hashed = await passwords.hash(wanted.password)
        new = NewUser(wanted.username, wanted.email, hashed, UserRole.ADMIN)
        user = await operator.registry.create_user(new, operator.now())
        operator.note("user.registered", user.id, username=user.username, role=user.role.value)
        return user.id


class _Operator:
    """What a command works with. What it notes is in the event log when it ends."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.noted: list[Event] = []

    def now(self) -> datetime:
        return datetime.now(UTC)

    def note(self, event_type: str, user_id: int | None, **details: str) -> None:
        at_ms, told = to_ms(self.now()), details | {"by": COMMAND_LINE}
        self.noted.append(Event(uuid4().hex, event_type, at_ms, user_id, None, told))


@asynccontextmanager
async def _operating(settings: Settings) -> AsyncGenerator[_Operator]:
    # Both before anything is done: of a URL that cannot work it is said at once.
    registry, events = SqlRegistry(settings.store_url("registry")), create_event_store(settings)
    operator = _Operator(registry)
    try:
        await registry.open()
        yield operator
        await _log(events, operator.noted)
    finally:
        await events.close()
        await registry.close()


async def _log(store: EventStore, events: Sequence[Event]) -> None:
    """An event log that is away keeps nobody from operating; what it lacks then is said."""
    try:
        await store.open()
        await store.append(events)
    except StoreUnavailableError as error:
        missing = ", ".join(event.event_type for event in events)
        print(f"iotflow: done, but not logged as {missing}. {error.message}", file=sys.stderr)  # noqa: T201


@asynccontextmanager
async def _hashing() -> AsyncGenerator[Passwords]:
    passwords = Passwords()
    try:
        yield passwords
    finally:
        passwords.close()
