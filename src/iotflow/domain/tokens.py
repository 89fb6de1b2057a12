"""Personal tokens and invitations: what is kept of them."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Scope(StrEnum):
    READ = "read"
    WRITE = "write"


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class PersonalToken:
    """A long-lived token's metadata. The token itself is shown once and never kept."""

    id: int
    user_id: int
    name: str
    prefix: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Invitation:
    """Lets one person register, until it expires. The code itself is shown once."""

    id: int
    created_at: datetime
    expires_at: datetime
