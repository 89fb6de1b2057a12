"""Worker slots: which share of all timestamps a process may issue (domain.clock.Lane)."""

from datetime import datetime

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from iotflow.stores.registry.models import worker_slots
from iotflow.stores.registry.sql_base import Connections

# Any number that nothing else in the database locks (migrations.py has 0x10F10).
_ADVISORY_LOCK = 0x10F11


class Slots(Connections):
    async def lease_slot(
        self, owner: str, slots: int, until: datetime, now: datetime
    ) -> int | None:
        column = worker_slots.c
        async with self.writing() as connection:
            await _take_turns(connection)
            # Locked against `extend_slot`, which may be keeping one that has just run out.
            known = select(column.slot, column.leased_until).where(column.slot < slots)
            rows = (await connection.execute(known.with_for_update())).all()
            unused = set(range(slots)) - {row.slot for row in rows}
            if unused:
                slot = min(unused)
                lease = {"slot": slot, "owner": owner, "leased_until": until}
                await connection.execute(insert(worker_slots).values(lease))
                return slot
            longest_free = min(rows, key=lambda row: row.leased_until)
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


async def _take_turns(connection: AsyncConnection) -> None:
    """Let one process at a time choose: row locks do not hold back a row that is not there yet."""
    if connection.dialect.name == "postgresql":
        await connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
