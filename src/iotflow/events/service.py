"""Who may look back on which events."""

import msgspec

from iotflow.devices.service import Devices
from iotflow.domain.callers import UserCaller
from iotflow.domain.events import Event
from iotflow.stores.events.protocol import EventQuery, EventStore


class Events:
    """The event log as its readers see it."""

    def __init__(self, store: EventStore, devices: Devices) -> None:
        self._store = store
        self._devices = devices

    async def page(self, caller: UserCaller, query: EventQuery) -> tuple[list[Event], bool]:
        """One page of what the caller may see, and whether there is more.

        A query without a user means the caller's own events, and for an admin who names a
        device that device's, whoever owns it.

        Raises:
            NotFoundError: a user or a device that the caller may not see, or that is not there.
            StoreUnavailableError: the event store is away, or the registry is.
        """
        if query.user_id is not None:
            caller.require_self_or_admin(query.user_id)
        if query.device_id is not None:
            await self._devices.require_readable(caller, [query.device_id])
        if query.user_id is None and not (caller.is_admin and query.device_id is not None):
            query = msgspec.structs.replace(query, user_id=caller.user.id)
        return await self._store.query(query)
