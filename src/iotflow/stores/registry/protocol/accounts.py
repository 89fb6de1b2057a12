"""Users with their sessions, personal tokens and invitations."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from iotflow.domain.devices import DeviceStatus
from iotflow.domain.tokens import Invitation, PersonalToken, Scope
from iotflow.domain.users import User, UserRole


@dataclass(frozen=True, slots=True)
class NewUser:
    username: str
    email: str
    password_hash: str
    role: UserRole = UserRole.USER


@dataclass(frozen=True, slots=True)
class NewRefreshToken:
    """`family` is shared by all tokens that came from one login.

    `token_version` is the user's when the password was read; None where nothing was proved.
    """

    user_id: int
    family: str
    digest: str
    expires_at: datetime
    token_version: int | None = None


class Rotated(NamedTuple):
    """A refresh token was exchanged for its successor."""

    user: User
    family: str


class Reused(NamedTuple):
    """A refresh token came a second time, which has ended its session."""

    user_id: int


@dataclass(frozen=True, slots=True)
class NewPersonalToken:
    """`token_version` is the user's when the request for it was let in."""

    user_id: int
    name: str
    digest: str
    prefix: str
    scopes: frozenset[Scope]
    expires_at: datetime | None
    token_version: int


@dataclass(frozen=True, slots=True)
class NewInvitation:
    digest: str
    created_by: int | None
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class UserQuery:
    """Users in order of their ids. None means any; `text` is looked for in name and address."""

    limit: int
    text: str | None = None
    role: UserRole | None = None
    is_active: bool | None = None
    after_id: int = 0


@dataclass(frozen=True, slots=True)
class RegistryCounts:
    """How much there is. `devices` has every status."""

    users: int
    active_users: int
    admins: int
    devices: Mapping[DeviceStatus, int]
    groups: int


class Accounts(Protocol):
    """Who may sign in, and with what."""

    async def create_user(
        self, new: NewUser, now: datetime, invitation_digest: str | None = None
    ) -> User:
        """Create a user, and use up an invitation where one is given.

        Raises:
            ConflictError: `username_taken`, `email_taken`; the invitation is not used then.
            NotAllowedError: `invalid_invitation`, it is unknown, used or expired.
        """
        ...

    async def user(self, user_id: int) -> User | None: ...

    async def credentials(self, username_or_email: str) -> tuple[User, str] | None:
        """The user of a name or address, with the password hash."""
        ...

    async def users(self, query: UserQuery) -> tuple[list[User], bool]:
        """One page, and whether there is more."""
        ...

    async def credentials_of(self, user_id: int) -> tuple[User, str] | None:
        """The user with the password hash."""
        ...

    async def update_user(
        self, user_id: int, changes: Mapping[str, Any], now: datetime
    ) -> User | None:
        """Set username, email or role; None where there is no such user.

        Raises:
            ConflictError: as `create_user`.
        """
        ...

    async def set_password(
        self, user_id: int, password_hash: str, kept_session: str | None, now: datetime
    ) -> User | None:
        """Replace the password; all personal tokens and all sessions but the kept one end."""
        ...

    async def set_user_active(
        self, user_id: int, is_active: bool, now: datetime
    ) -> tuple[User, list[str]] | None:
        """Switch an account on or off; returns the digests of its devices' live keys with it.

        Switched off, its personal tokens and its sessions end.
        """
        ...

    async def note_login(self, user_id: int, now: datetime, password_hash: str | None) -> None:
        """Stamp last_login_at; `password_hash` replaces an outdated one."""
        ...

    async def add_refresh_token(self, new: NewRefreshToken, now: datetime) -> None:
        """Also forgets tokens that expired long ago, a bounded number of them.

        Raises:
            NotFoundError: there is no such user, or none of that `token_version`.
        """
        ...

    async def rotate_refresh_token(
        self, digest: str, successor_digest: str, expires_at: datetime, now: datetime
    ) -> Rotated | Reused | None:
        """Exchange a live token for its successor in the same family.

        None where the token opens nothing, and where its family had ended already.
        """
        ...

    async def end_session(self, digest: str, now: datetime) -> int | None:
        """Revoke the family of a refresh token. The id of the user whose session that was, None
        where there is no such token or its session had ended already."""
        ...

    async def counts(self) -> RegistryCounts: ...

    async def add_personal_token(
        self, new: NewPersonalToken, limit: int, now: datetime
    ) -> PersonalToken:
        """Also forgets the user's expired ones.

        Raises:
            NotFoundError: there is no such user, or none of that `token_version`.
            ConflictError: `too_many_tokens`, the user has `limit` live ones.
        """
        ...

    async def personal_tokens(
        self, user_id: int, after_id: int, limit: int, now: datetime
    ) -> tuple[list[PersonalToken], bool]:
        """A page of a user's live tokens in order of their ids, and whether there is more."""
        ...

    async def personal_token(self, digest: str, now: datetime) -> tuple[PersonalToken, User] | None:
        """What a live token opens; None for unknown, deleted and expired ones."""
        ...

    async def delete_personal_token(self, user_id: int, token_id: int) -> str | None:
        """End a token; returns its digest, or None where the user has no such token."""
        ...

    async def note_token_used(self, token_id: int, now: datetime) -> None:
        """Stamp a token's last use."""
        ...

    async def add_invitation(self, new: NewInvitation, now: datetime) -> Invitation:
        """Also forgets those that have expired."""
        ...
