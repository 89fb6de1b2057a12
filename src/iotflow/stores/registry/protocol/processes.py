"""What the processes that run at once agree on."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Slot:
    """A process's place among those that run at once.

    `lanes` is by how many places its holder counts: a power of two above every `number`.
    """

    number: int
    owner: str
    lanes: int
    renewed_at: datetime


class Processes(Protocol):
    """Places among the processes, and the epoch of their caches."""

    async def claim_slot(
        self,
        owner: str,
        limit: int,
        min_lanes: int,
        now: datetime,
        dead: Mapping[str, datetime],
        *,
        alone: bool = False,
    ) -> list[Slot] | None:
        """Take a free slot below `limit`; returns all that are held now, or None for no room.

        `dead` holders are forgotten unless they have renewed since the time given with them;
        `alone` says that all are. The lowest number is taken, rather not that of one that
        is forgotten now. A released one is free two seconds later.
        """
        ...

    async def renew_slot(
        self, owner: str, min_lanes: int, now: datetime, dead: Mapping[str, datetime]
    ) -> list[Slot] | None:
        """Keep a slot, with as many lanes as are needed now; returns all, or None if it is gone."""
        ...

    async def release_slot(self, owner: str, now: datetime) -> None:
        """Give a slot up: its holder issues no more."""
        ...

    async def cache_epoch(self) -> int:
        """The epoch of what caches may hold (see `stores.cache.protocol.Epoch`); 1 at first."""
        ...

    async def raise_cache_epoch(self) -> int:
        """Begin a new epoch, whichever replica asks; returns it."""
        ...
