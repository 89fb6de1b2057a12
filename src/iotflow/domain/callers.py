"""Who is asking, once the credentials have been checked."""

from dataclasses import dataclass

from iotflow.domain.devices import KeyRecord
from iotflow.domain.users import User, UserRole
from iotflow.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class UserCaller:
    """A user by an access token."""

    user: User

    @property
    def is_admin(self) -> bool:
        return self.user.role is UserRole.ADMIN

    @property
    def subject(self) -> str:
        """Whose rate limits count."""
        return f"user:{self.user.id}"

    def require_self_or_admin(self, user_id: int) -> None:
        """Let a user ask for themselves alone, an admin for anyone.

        Raises:
            NotFoundError: for everyone else, whether that user exists or not.
        """
        if not self.is_admin and self.user.id != user_id:
            raise NotFoundError("There is no such user.")


@dataclass(frozen=True, slots=True)
class DeviceCaller:
    """A device by its key."""

    key: KeyRecord

    @property
    def subject(self) -> str:
        """Whose rate limits count."""
        return f"device:{self.key.device_id}"


Caller = UserCaller | DeviceCaller
