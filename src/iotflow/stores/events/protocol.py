"""The events role: an append-only log that tolerates repetition."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from iotflow.domain.events import Event
from iotflow.domain.times import TimeRange
from iotflow.stores.lifecycle import Store


class EventPageKey(msgspec.Struct, frozen=True, gc=False):
    """The last event of a page."""

    timestamp_ms: int
    id: str


class EventQuery(msgspec.Struct, frozen=True, gc=False):
    """Events newest first (then by descending id). None means any."""

    range: TimeRange
    limit: int
    user_id: int | None = None
    device_id: int | None = None
    event_type: str | None = None
    after: EventPageKey | None = None


class EventStore(Store, Protocol):
    """Every method raises StoreUnavailableError while the store is away."""

    async def append(self, events: Sequence[Event]) -> int:
        """Store events; a known id changes nothing. Returns how many were new."""
        ...

    async def query(self, query: EventQuery) -> tuple[list[Event], bool]:
        """One page, and whether there is more."""
        ...

    async def delete_device(self, device_id: int) -> int:
        """Delete a device's events; returns how many."""
        ...

    async def delete_user(self, user_id: int) -> int:
        """Delete a user's events; returns how many."""
        ...
