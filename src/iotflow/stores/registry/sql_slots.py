"""Worker slots: which share of all timestamps a process may issue (domain.clock.Lane)."""

from datetime import datetime

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from iotflow.stores.registry.models import worker_slots
from iotflow.stores.registry.sql_base import Connections

_ATTEMPTS = 5


class Slots(Connections):
    async def lease_slot(
        self, owner: str, slots: int, until: datetime, now: datetime
    ) -> int | None:
        for _ in range(_ATTEMPTS):
            try:
                return await self._lease(owner, slots, until, now)
            except IntegrityError:
                continue  # another process took the unused slot first
        return None

    async def _lease(self, owner: str, slots: int, until: datetime, now: datetime) -> int | None:
        column = worker_slots.c
        async with self.writing() as connection:
            taken = (
                await connection.execute(
                    select(column.slot, column.leased_until)
                    .where(column.slot < slots)
                    .order_by(column.leased_until)
                    .with_for_update()
                )
            ).all()
            unused = sorted(set(range(slots)) - {row.slot for row in taken})
            if unused:
                lease = {"slot": unused[0], "owner": owner, "leased_until": until}
                await connection.execute(insert(worker_slots).values(lease))
                return unused[0]
            longest_free = taken[0]
            if longest_free.leased_until > now:
                return None
            await connection.execute(
                update(worker_slots)
                .where(column.slot == longest_free.slot)
                .values(owner=owner, leased_until=until)
            )
            return longest_free.slot

    async def extend_slot(self, slot: int, owner: str, until: datetime) -> bool:
        column = worker_slots.c
        async with self.writing() as connection:
            kept = await connection.execute(
                update(worker_slots)
                .where(column.slot == slot, column.owner == owner)
                .values(leased_until=until)
            )
            return kept.rowcount == 1
