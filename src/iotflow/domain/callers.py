"""Who is asking, once the credentials have been checked."""

from dataclasses import dataclass
from datetime import datetime

from iotflow.domain.devices import KeyRecord
from iotflow.domain.tokens import ALL_SCOPES, Scope
from iotflow.domain.users import User, UserRole
from iotflow.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class UserCaller:
    """A user by an access token (then with its session) or a personal token."""

    user: User
    scopes: frozenset[Scope] = ALL_SCOPES
    session: str | None = None
    token_expires_at: datetime | None = None

    @property
    def is_admin(self) -> bool:
        return self.user.role is UserRole.ADMIN

    @property
    def subject(self) -> str:
        """Whose rate limits count."""
        return f"user:{self.user.id}"

    def may_act_for(self, owner_id: int) -> bool:
        """Whether what belongs to that user is the caller's to see and change."""
        return self.is_admin or self.user.id == owner_id

    def require_self_or_admin(self, user_id: int) -> None:
        """Let a user ask for themselves alone, an admin for anyone.

        Raises:
            NotFoundError: for everyone else, whether that user exists or not.
        """
        if not self.may_act_for(user_id):
            raise NotFoundError("There is no such user.")


@dataclass(frozen=True, slots=True)
class DeviceCaller:
    """A device by its key."""

    key: KeyRecord

    def is_device(self, device_id: int) -> bool:
        """Whether that device is the caller: a device sees nothing but itself."""
        return self.key.device_id == device_id

    @property
    def subject(self) -> str:
        """Whose rate limits count."""
        return f"device:{self.key.device_id}"


Caller = UserCaller | DeviceCaller
