"""Devices."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from iotflow.domain.devices import ApiKey, Device, DeviceStatus
from iotflow.errors import NotFoundError, StaleVersionError
from iotflow.stores.registry.models import api_keys, devices, group_devices, users
from iotflow.stores.registry.protocol import DeviceQuery, NewDevice, NewKey
from iotflow.stores.registry.sql_base import Connections
from iotflow.stores.registry.sql_keys import insert_keys, live, to_key
from iotflow.stores.registry.sql_users import refuse_beyond


def to_device(row: Any, key: ApiKey | None) -> Device:
    return Device(
        id=row.id,
        user_id=row.user_id,
        name=row.name,
        status=DeviceStatus(row.status),
        created_at=row.created_at,
        updated_at=row.updated_at,
        description=row.description,
        device_type=row.device_type,
        location=row.location,
        labels=row.labels,
        firmware_version=row.firmware_version,
        hardware_version=row.hardware_version,
        last_seen=row.last_seen,
        key=key,
    )


class Devices(Connections):
    async def create_device(self, new: NewDevice, key: NewKey, now: datetime) -> Device:
        return (await self.create_devices([(new, key)], now))[0]

    async def create_devices(
        self, new: Sequence[tuple[NewDevice, NewKey]], now: datetime, limit: int | None = None
    ) -> list[Device]:
        try:
            rows, keys = await self._insert(new, now, limit)
        except IntegrityError:
            await self._require_users({device.user_id for device, _ in new})
            raise
        return [to_device(row, key) for row, key in zip(rows, keys, strict=True)]

    async def _insert(
        self, new: Sequence[tuple[NewDevice, NewKey]], now: datetime, limit: int | None
    ) -> tuple[Sequence[Any], list[ApiKey]]:
        adding = Counter(device.user_id for device, _ in new)
        async with self.writing() as connection:
            if limit is not None:
                for user_id in sorted(adding):
                    await refuse_beyond(connection, devices, user_id, adding[user_id], limit)
            created = await connection.execute(
                insert(devices).returning(devices, sort_by_parameter_order=True),
                [_row(device, now) for device, _ in new],
            )
            rows = created.all()
            keys = await insert_keys(
                connection, [(row.id, key) for row, (_, key) in zip(rows, new, strict=True)], now
            )
        return rows, keys

    async def _require_users(self, user_ids: Collection[int]) -> None:
        async with self.reading() as connection:
            found = await connection.execute(select(users.c.id).where(users.c.id.in_(user_ids)))
        if len(found.all()) < len(user_ids):
            raise NotFoundError("There is no such user.")

    async def device(self, device_id: int) -> Device | None:
        async with self.reading() as connection:
            statement = select(devices).where(devices.c.id == device_id)
            found = (await connection.execute(statement)).first()
        # Asked for in any case: what does not exist costs as much as what is another's.
        keys = await self._newest_keys([device_id])
        return None if found is None else to_device(found, keys.get(device_id))

    async def devices(self, query: DeviceQuery) -> tuple[list[Device], bool]:
        async with self.reading() as connection:
            rows = (await connection.execute(_page(query))).all()
        page, more = rows[: query.limit], len(rows) > query.limit
        keys = await self._newest_keys([row.id for row in page])
        return [to_device(row, keys.get(row.id)) for row in page], more

    async def _newest_keys(self, device_ids: list[int]) -> dict[int, ApiKey]:
        if not device_ids:
            return {}
        statement = (
            select(api_keys)
            .where(api_keys.c.device_id.in_(device_ids), api_keys.c.revoked_at.is_(None))
            .order_by(api_keys.c.id)
        )
        async with self.reading() as connection:
            return {row.device_id: to_key(row) for row in await connection.execute(statement)}

    async def known_devices(self, device_ids: Collection[int]) -> set[int]:
        statement = select(devices.c.id).where(devices.c.id.in_(device_ids))
        async with self.reading() as connection:
            return set((await connection.execute(statement)).scalars())

    async def live_keys(self, device_ids: Collection[int], now: datetime) -> list[str]:
        chosen = api_keys.c.device_id.in_(device_ids)
        statement = select(api_keys.c.digest).where(chosen, live(now)).order_by(api_keys.c.id)
        async with self.reading() as connection:
            return list((await connection.execute(statement)).scalars())

    async def device_names(self, user_id: int, limit: int) -> dict[int, str]:
        columns = (devices.c.id, devices.c.name)
        statement = (
            select(*columns).where(devices.c.user_id == user_id).order_by(devices.c.id).limit(limit)
        )
        async with self.reading() as connection:
            return {row.id: row.name for row in await connection.execute(statement)}

    async def update_device(
        self,
        device_id: int,
        changes: Mapping[str, Any],
        unchanged_since: datetime | None,
        now: datetime,
    ) -> tuple[Device, list[str]] | None:
        async with self.writing() as connection:
            updated_at = await lock_device(connection, device_id, unchanged_since)
            if updated_at is None:
                return None
            later = max(now, updated_at + timedelta(microseconds=1))
            updated = await connection.execute(
                update(devices)
                .where(devices.c.id == device_id)
                .values({**changes, "updated_at": later})
                .returning(devices)
            )
            row = updated.one()
            keys = (
                await connection.execute(
                    select(api_keys)
                    .where(api_keys.c.device_id == device_id, api_keys.c.revoked_at.is_(None))
                    .order_by(api_keys.c.id)
                )
            ).all()
        newest = to_key(keys[-1]) if keys else None
        return to_device(row, newest), [key.digest for key in keys]


async def lock_device(
    connection: AsyncConnection, device_id: int, unchanged_since: datetime | None
) -> datetime | None:
    """Hold a device's row to the end of the transaction; when it was updated, None for none.

    Raises:
        StaleVersionError: that is not `unchanged_since`, where that is given.
    """
    found = await connection.execute(
        select(devices.c.updated_at).where(devices.c.id == device_id).with_for_update()
    )
    updated_at: datetime | None = found.scalar()
    if updated_at is not None and unchanged_since not in (None, updated_at):
        raise StaleVersionError("This device has been changed meanwhile. Read it again.")
    return updated_at


def _row(new: NewDevice, now: datetime) -> dict[str, Any]:
    return {
        "user_id": new.user_id,
        "name": new.name,
        "description": new.description,
        "device_type": new.device_type,
        "location": new.location,
        "labels": new.labels,
        "firmware_version": new.firmware_version,
        "hardware_version": new.hardware_version,
        "status": DeviceStatus.ACTIVE.value,
        "created_at": now,
        "updated_at": now,
    }


def _page(query: DeviceQuery) -> Select[Any]:
    column = devices.c
    statement = select(devices).where(column.id > query.after_id).order_by(column.id)
    if query.user_id is not None:
        statement = statement.where(column.user_id == query.user_id)
    if query.status is not None:
        statement = statement.where(column.status == query.status.value)
    if query.device_type is not None:
        statement = statement.where(column.device_type == query.device_type)
    if query.group_id is not None:
        members = select(group_devices.c.device_id).where(
            group_devices.c.group_id == query.group_id
        )
        statement = statement.where(column.id.in_(members))
    for label, value in query.labels:
        statement = statement.where(column.labels[label].as_string() == value)
    if query.text is not None:
        matches = (
            part.icontains(query.text, autoescape=True)
            for part in (column.name, column.description, column.location)
        )
        statement = statement.where(or_(*matches))
    return statement.limit(query.limit + 1)
