"""Groups and which devices are in them."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from iotflow.domain.groups import Group, Membership
from iotflow.errors import NotFoundError
from iotflow.stores.registry.models import devices, group_devices, groups
from iotflow.stores.registry.protocol import GroupQuery, NewGroup
from iotflow.stores.registry.sql_base import Connections
from iotflow.stores.registry.sql_users import refuse_beyond
from iotflow.stores.sql import inserting


def _to_group(row: Any, device_count: int) -> Group:
    return Group(
        id=row.id,
        user_id=row.user_id,
        name=row.name,
        description=row.description,
        color=row.color,
        device_count=device_count,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


class Groups(Connections):
    async def create_group(self, new: NewGroup, now: datetime, limit: int | None = None) -> Group:
        row = {
            "user_id": new.user_id,
            "name": new.name,
            "description": new.description,
            "color": new.color,
            "created_at": now,
            "updated_at": now,
        }
        try:
            async with self.writing() as connection:
                if limit is not None:
                    await refuse_beyond(connection, groups, new.user_id, 1, limit)
                created = await connection.execute(insert(groups).values(row).returning(groups))
                return _to_group(created.one(), 0)
        except IntegrityError:
            raise NotFoundError("There is no such user.") from None

    async def group(self, group_id: int) -> Group | None:
        async with self.reading() as connection:
            found = await connection.execute(_counted().where(groups.c.id == group_id))
            row = found.first()
        return _to_group(row, row.device_count) if row else None

    async def groups(self, query: GroupQuery) -> tuple[list[Group], bool]:
        async with self.reading() as connection:
            rows = (await connection.execute(_page(query))).all()
        page = [_to_group(row, row.device_count) for row in rows[: query.limit]]
        return page, len(rows) > query.limit

    async def update_group(
        self,
        group_id: int,
        name: str,
        description: str | None,
        color: str | None,
        now: datetime,
    ) -> Group | None:
        values = {"name": name, "description": description, "color": color, "updated_at": now}
        async with self.writing() as connection:
            await connection.execute(update(groups).where(groups.c.id == group_id).values(values))
        return await self.group(group_id)

    async def delete_group(self, group_id: int) -> bool:
        async with self.writing() as connection:
            deleted = await connection.execute(delete(groups).where(groups.c.id == group_id))
        return deleted.rowcount > 0

    async def add_to_group(
        self, group_id: int, device_ids: Collection[int], now: datetime
    ) -> dict[int, Membership]:
        async with self.writing() as connection:
            there = await _held_devices(connection, group_id, device_ids)
            added = await _inserted(connection, group_id, there, now)
        return {
            device_id: Membership.NOT_FOUND
            if device_id not in there
            else Membership.ADDED
            if device_id in added
            else Membership.ALREADY
            for device_id in device_ids
        }

    async def remove_from_group(self, group_id: int, device_id: int) -> bool:
        member = group_devices.c
        async with self.writing() as connection:
            removed = await connection.execute(
                delete(group_devices).where(
                    member.group_id == group_id, member.device_id == device_id
                )
            )
        return removed.rowcount > 0


def _counted() -> Select[Any]:
    count = (
        select(func.count())
        .select_from(group_devices)
        .where(group_devices.c.group_id == groups.c.id)
        .scalar_subquery()
    )
    return select(groups, count.label("device_count"))


def _page(query: GroupQuery) -> Select[Any]:
    statement = _counted().where(groups.c.id > query.after_id).order_by(groups.c.id)
    if query.user_id is not None:
        statement = statement.where(groups.c.user_id == query.user_id)
    if query.device_id is not None:
        holding = select(group_devices.c.group_id).where(
            group_devices.c.device_id == query.device_id
        )
        statement = statement.where(groups.c.id.in_(holding))
    return statement.limit(query.limit + 1)


async def _held_devices(
    connection: AsyncConnection, group_id: int, device_ids: Collection[int]
) -> set[int]:
    """Those of the devices that the group's user has, which stay until the transaction ends."""
    group = await connection.execute(
        select(groups.c.user_id)
        .where(groups.c.id == group_id)
        .with_for_update(read=True, key_share=True)
    )
    user_id = group.scalar()
    if user_id is None:
        raise NotFoundError("There is no such group.")
    found = await connection.execute(
        select(devices.c.id)
        .where(devices.c.id.in_(device_ids), devices.c.user_id == user_id)
        .order_by(devices.c.id)
        .with_for_update(read=True, key_share=True)
    )
    return set(found.scalars())


async def _inserted(
    connection: AsyncConnection, group_id: int, device_ids: Collection[int], now: datetime
) -> set[int]:
    """Those that were not there yet. In one order, so that two callers cannot block each other."""
    if not device_ids:
        return set()
    rows = [
        {"group_id": group_id, "device_id": device_id, "added_at": now}
        for device_id in sorted(device_ids)
    ]
    insertion = inserting(group_devices, connection.dialect.name)
    statement = insertion.values(rows).on_conflict_do_nothing()
    added = await connection.execute(statement.returning(group_devices.c.device_id))
    return set(added.scalars())
