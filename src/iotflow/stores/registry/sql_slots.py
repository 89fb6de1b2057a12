"""Worker slots: which share of all timestamps a process may issue (pipeline/lane.py)."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from iotflow.stores.registry.models import worker_slots
from iotflow.stores.registry.protocol import Slot
from iotflow.stores.registry.sql_base import Connections

# Any number that nothing else in the database locks (migrations.py has 0x10F10).
_ADVISORY_LOCK = 0x10F11
# What its last holder has issued ahead of the clock is past after this.
_SETTLED_AFTER = timedelta(seconds=2)
_RELEASED = ""


class Slots(Connections):
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
        async with self.writing() as connection:
            slots = await _locked_slots(connection)
            if alone:
                dead = {slot.owner: slot.renewed_at for slot in slots if slot.owner != _RELEASED}
            gone = await _remove_gone(connection, slots, dead, now)
            kept = [slot for slot in slots if slot not in gone]
            number = _free_number(kept, gone, limit)
            if number is None:
                return None
            lanes = _lanes([*(slot.number for slot in kept), number], min_lanes)
            mine = Slot(number, owner, lanes, now)
            await connection.execute(insert(worker_slots).values(_row(mine)))
            return [*(slot for slot in kept if slot.owner != _RELEASED), mine]

    async def renew_slot(
        self, owner: str, min_lanes: int, now: datetime, dead: Mapping[str, datetime]
    ) -> list[Slot] | None:
        async with self.writing() as connection:
            slots = await _locked_slots(connection)
            mine = next((slot for slot in slots if slot.owner == owner), None)
            if mine is None:
                return None
            gone = await _remove_gone(connection, slots, dead, now)
            kept = [slot for slot in slots if slot not in gone and slot is not mine]
            lanes = _lanes([*(slot.number for slot in kept), mine.number], min_lanes)
            renewed = Slot(mine.number, owner, lanes, now)
            await connection.execute(
                update(worker_slots)
                .where(worker_slots.c.slot == mine.number)
                .values(lanes=lanes, renewed_at=now)
            )
            return [*(slot for slot in kept if slot.owner != _RELEASED), renewed]

    async def release_slot(self, owner: str, now: datetime) -> None:
        async with self.writing() as connection:
            await connection.execute(
                update(worker_slots)
                .where(worker_slots.c.owner == owner)
                .values(owner=_RELEASED, renewed_at=now)
            )


async def _locked_slots(connection: AsyncConnection) -> list[Slot]:
    """All slots, while no other process may look: two must not choose at once."""
    if connection.dialect.name == "postgresql":
        await connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
    rows = await connection.execute(select(worker_slots).order_by(worker_slots.c.slot))
    return [Slot(row.slot, row.owner, row.lanes, row.renewed_at) for row in rows]


async def _remove_gone(
    connection: AsyncConnection,
    slots: Collection[Slot],
    dead: Mapping[str, datetime],
    now: datetime,
) -> list[Slot]:
    """Forget holders that are dead and have not been renewed since that was seen, and those that
    were released long enough ago."""
    settled = now - _SETTLED_AFTER
    gone = [
        slot
        for slot in slots
        if (slot.owner == _RELEASED and slot.renewed_at <= settled)
        or (slot.owner != _RELEASED and dead.get(slot.owner) == slot.renewed_at)
    ]
    if gone:
        numbers = [slot.number for slot in gone]
        await connection.execute(delete(worker_slots).where(worker_slots.c.slot.in_(numbers)))
    return gone


def _free_number(kept: Collection[Slot], gone: Collection[Slot], limit: int) -> int | None:
    """The lowest number that nobody has, rather not one whose holder has just died."""
    free = sorted(set(range(limit)) - {slot.number for slot in kept})
    killed = {slot.number for slot in gone if slot.owner != _RELEASED}
    return next((number for number in free if number not in killed), free[0] if free else None)


def _lanes(numbers: Collection[int], min_lanes: int) -> int:
    """The power of two (or `min_lanes`, if that is more) that has room for these numbers."""
    lanes = min_lanes
    while lanes <= max(numbers):
        lanes *= 2
    return lanes


def _row(slot: Slot) -> dict[str, Any]:
    return {
        "slot": slot.number,
        "owner": slot.owner,
        "lanes": slot.lanes,
        "renewed_at": slot.renewed_at,
    }
