"""People and programs that own devices."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class UserRole(StrEnum):
    USER = "user"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class User:
    """An account. Its password hash stays in the registry.

    An access token counts if it was issued under the present `token_version`, or if it is one
    of `kept_session`, whose owner ended all others.
    """

    id: int
    username: str
    email: str
    role: UserRole
    is_active: bool
    created_at: datetime
    updated_at: datetime
    last_login_at: datetime | None = None
    token_version: int = 0
    kept_session: str | None = None
