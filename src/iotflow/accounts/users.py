"""Users as they and administrators see and change them."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from iotflow.accounts.authentication import BearerAuthenticator
from iotflow.devices.authentication import KeyAuthenticator
from iotflow.domain.callers import UserCaller
from iotflow.domain.events import Event
from iotflow.domain.secrets import INVITATION_PREFIX, new_secret
from iotflow.domain.tokens import Invitation
from iotflow.domain.users import User, UserRole
from iotflow.errors import ConflictError, NotAllowedError, NotFoundError
from iotflow.stores.registry.protocol import NewInvitation, Registry, RegistryCounts, UserQuery


class Users:
    """The caller of each method may see the user at hand; roles are asked for where they count."""

    def __init__(
        self,
        registry: Registry,
        bearers: BearerAuthenticator,
        keys: KeyAuthenticator,
        *,
        log_event: Callable[[Event], None],
        now: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._bearers = bearers
        self._keys = keys
        self._log_event = log_event
        self._now_s = now

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._now_s(), UTC)

    async def get(self, user_id: int) -> User:
        """Raises NotFoundError."""
        return _found(await self._registry.user(user_id))

    async def page(self, query: UserQuery) -> tuple[list[User], bool]:
        """One page, and whether there is more."""
        return await self._registry.users(query)

    async def counts(self) -> RegistryCounts:
        """How many users, devices and groups there are."""
        return await self._registry.counts()

    async def update(self, caller: UserCaller, user_id: int, changes: Mapping[str, Any]) -> User:
        """Set username, email or, as an admin, the role.

        Raises:
            NotFoundError, ConflictError: `username_taken`, `email_taken`, `own_account`.
            NotAllowedError: a role, by someone who is no admin.
        """
        if "role" in changes:
            if not caller.is_admin:
                raise NotAllowedError("Only an administrator sets roles.")
            _refuse_own(caller, user_id)
            changes = {**changes, "role": UserRole(changes["role"]).value}
        if not changes:
            return await self.get(user_id)
        user = _found(await self._registry.update_user(user_id, changes, self._now()))
        self._bearers.forget_user(user_id)
        names = {"by": str(caller.user.id), "fields": " ".join(sorted(changes))}
        self._audit("user.updated", user_id, names)
        if "role" in changes:
            details = {"by": str(caller.user.id), "role": user.role.value}
            self._audit("user.role_changed", user_id, details)
        return user

    async def set_active(self, caller: UserCaller, user_id: int, is_active: bool) -> User:
        """Switch an account and its devices on or off, on every replica within a second.

        Raises:
            NotFoundError, ConflictError: `own_account`, one's own is not to be switched off.
        """
        if not is_active:
            _refuse_own(caller, user_id)
        # A caller that gives up now must not leave the keys alive in some cache.
        return await asyncio.shield(self._set_active(caller, user_id, is_active))

    async def _set_active(self, caller: UserCaller, user_id: int, is_active: bool) -> User:
        changed = await self._registry.set_user_active(user_id, is_active, self._now())
        if changed is None:
            raise _no_such_user()
        user, digests = changed
        self._bearers.forget_user(user_id)
        if digests:
            await self._keys.forget(digests)
        event = "user.activated" if is_active else "user.deactivated"
        self._audit(event, user_id, {"by": str(caller.user.id)})
        return user

    def check_deletable(self, caller: UserCaller, user_id: int) -> None:
        """Raises ConflictError (`own_account`): the last administrator must not go by mistake."""
        _refuse_own(caller, user_id)

    async def invite(self, created_by: int | None, expires_in_s: int) -> tuple[Invitation, str]:
        """Make an invitation; returns it with its code, at the only moment when that is known."""
        now, secret = self._now(), new_secret(INVITATION_PREFIX)
        new = NewInvitation(secret.digest, created_by, now + timedelta(seconds=expires_in_s))
        invitation = await self._registry.add_invitation(new, now)
        self._audit("invitation.created", created_by, {"invitation_id": str(invitation.id)})
        return invitation, secret.secret

    def _audit(self, event_type: str, user_id: int | None, details: dict[str, str]) -> None:
        at_ms = int(self._now_s() * 1000)
        self._log_event(Event(uuid4().hex, event_type, at_ms, user_id, None, details))


def _refuse_own(caller: UserCaller, user_id: int) -> None:
    if caller.user.id == user_id:
        raise ConflictError(
            "This is your own account. Another administrator can do this.", code="own_account"
        )


def _found(user: User | None) -> User:
    if user is None:
        raise _no_such_user()
    return user


def _no_such_user() -> NotFoundError:
    return NotFoundError("There is no such user.")
