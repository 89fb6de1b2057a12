"""Groups of devices."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Group:
    """A user's group. A device may be in any number of its user's groups."""

    id: int
    user_id: int
    name: str
    description: str | None
    color: str | None
    device_count: int
    created_at: datetime
    updated_at: datetime


class Membership(StrEnum):
    """What became of a device that was to be added to a group."""

    ADDED = "added"
    ALREADY = "already"
    NOT_FOUND = "not_found"
