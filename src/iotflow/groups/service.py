"""Groups: a user's own collections of devices."""

from collections.abc import Callable, Collection
from datetime import UTC, datetime

from iotflow.domain.callers import UserCaller
from iotflow.domain.groups import Group, Membership
from iotflow.errors import NotFoundError
from iotflow.stores.registry.protocol import DeviceQuery, GroupQuery, NewGroup, Registry


class Groups:
    """Every method treats another user's group as one that does not exist.

    `limit` is how many a user may have.
    """

    def __init__(self, registry: Registry, now: Callable[[], float], *, limit: int) -> None:
        self._registry = registry
        self._limit = limit
        self._now_s = now

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._now_s(), UTC)

    async def create(self, new: NewGroup) -> Group:
        """Create a group without devices.

        Raises:
            ConflictError: `too_many_groups`.
        """
        return await self._registry.create_group(new, self._now(), self._limit)

    async def of(self, caller: UserCaller, group_id: int) -> Group:
        """A group that the caller may see.

        Raises:
            NotFoundError: there is none, or it belongs to someone else.
        """
        group = await self._registry.group(group_id)
        if group is None or not caller.may_act_for(group.user_id):
            raise no_such_group()
        return group

    async def page(self, query: GroupQuery) -> tuple[list[Group], bool]:
        """One page, and whether there is more."""
        return await self._registry.groups(query)

    async def replace(
        self,
        caller: UserCaller,
        group_id: int,
        name: str,
        description: str | None,
        color: str | None,
    ) -> Group:
        """Replace what a group says of itself; its devices stay."""
        await self.of(caller, group_id)
        replaced = await self._registry.update_group(
            group_id, name, description, color, self._now()
        )
        if replaced is None:
            raise no_such_group()
        return replaced

    async def delete(self, caller: UserCaller, group_id: int) -> None:
        """Delete a group. Its devices stay."""
        await self.of(caller, group_id)
        if not await self._registry.delete_group(group_id):
            raise no_such_group()

    async def add(
        self, caller: UserCaller, group_id: int, device_ids: Collection[int]
    ) -> dict[int, Membership]:
        """Add devices of the group's user; says what became of each."""
        await self.of(caller, group_id)
        return await self._registry.add_to_group(group_id, device_ids, self._now())

    async def remove(self, caller: UserCaller, group_id: int, device_id: int) -> None:
        """Raises NotFoundError where the device is not in the group."""
        await self.of(caller, group_id)
        if not await self._registry.remove_from_group(group_id, device_id):
            raise NotFoundError("There is no such device in this group.")

    async def device_ids(
        self, caller: UserCaller, group_id: int, limit: int, after_id: int
    ) -> tuple[list[int], bool]:
        """Ids of a group's devices, and whether there are more."""
        await self.of(caller, group_id)
        query = DeviceQuery(limit=limit, group_id=group_id, after_id=after_id)
        devices, more = await self._registry.devices(query)
        return [device.id for device in devices], more


def no_such_group() -> NotFoundError:
    """The one answer for groups that do not exist and for those of others."""
    return NotFoundError("There is no such group.")
