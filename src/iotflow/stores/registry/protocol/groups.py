"""Groups of devices."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from iotflow.domain.groups import Group, Membership


@dataclass(frozen=True, slots=True)
class NewGroup:
    user_id: int
    name: str
    description: str | None = None
    color: str | None = None


@dataclass(frozen=True, slots=True)
class GroupQuery:
    """Groups in order of their ids; with `device_id`, those that it is in. None means any."""

    limit: int
    user_id: int | None = None
    device_id: int | None = None
    after_id: int = 0


class Groups(Protocol):
    """Named collections of devices."""

    async def create_group(self, new: NewGroup, now: datetime, limit: int | None = None) -> Group:
        """Create a group.

        Raises:
            NotFoundError: there is no such user.
            ConflictError: `too_many_groups`, the user would have more than `limit`.
        """
        ...

    async def group(self, group_id: int) -> Group | None: ...

    async def groups(self, query: GroupQuery) -> tuple[list[Group], bool]:
        """One page, and whether there is more."""
        ...

    async def update_group(
        self,
        group_id: int,
        name: str,
        description: str | None,
        color: str | None,
        now: datetime,
    ) -> Group | None:
        """Replace what a group says of itself; None where there is no such group."""
        ...

    async def delete_group(self, group_id: int) -> bool:
        """Delete a group, not its devices; whether there was one."""
        ...

    async def add_to_group(
        self, group_id: int, device_ids: Collection[int], now: datetime
    ) -> dict[int, Membership]:
        """Add devices of the group's user; says what became of each.

        Raises:
            NotFoundError: there is no such group.
        """
        ...

    async def remove_from_group(self, group_id: int, device_id: int) -> bool:
        """Whether the device was in the group."""
        ...
