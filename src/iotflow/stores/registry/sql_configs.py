"""Device configuration: desired and reported."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from iotflow.domain.configs import DeviceConfig, ReportedConfig
from iotflow.errors import NotFoundError, StaleVersionError
from iotflow.stores.registry.models import device_config, devices
from iotflow.stores.registry.sql_base import Connections


class Configs(Connections):
    async def device_config(self, device_id: int) -> DeviceConfig:
        async with self.reading() as connection:
            return await _read(connection, device_id) or DeviceConfig()

    async def put_device_config(
        self, device_id: int, config: str, expected: Collection[int] | None
    ) -> DeviceConfig:
        async with self.writing() as connection:
            held = await _locked(connection, device_id)
            version = held.version if held else 0
            if expected is not None and version not in expected:
                raise StaleVersionError("This configuration has changed meanwhile. Read it again.")
            values = {"version": version + 1, "config": config}
            return await _write(connection, device_id, values, is_new=held is None)

    async def report_device_config(
        self, device_id: int, version: int, config: str, now: datetime
    ) -> DeviceConfig:
        values: dict[str, Any] = {
            "reported_version": version,
            "reported_config": config,
            "reported_at": now,
        }
        async with self.writing() as connection:
            held = await _locked(connection, device_id)
            if held is None:
                values |= {"version": 0, "config": "{}"}
            return await _write(connection, device_id, values, is_new=held is None)


async def _locked(connection: AsyncConnection, device_id: int) -> DeviceConfig | None:
    """The configuration, with the device's row as the lock of it."""
    device = await connection.execute(
        select(devices.c.id).where(devices.c.id == device_id).with_for_update(key_share=True)
    )
    if device.first() is None:
        raise NotFoundError("There is no such device.")
    return await _read(connection, device_id)


async def _read(connection: AsyncConnection, device_id: int) -> DeviceConfig | None:
    statement = select(device_config).where(device_config.c.device_id == device_id)
    row = (await connection.execute(statement)).first()
    return _to_config(row) if row else None


async def _write(
    connection: AsyncConnection, device_id: int, values: dict[str, Any], *, is_new: bool
) -> DeviceConfig:
    statement: Any = (
        insert(device_config).values(device_id=device_id, **values)
        if is_new
        else update(device_config).where(device_config.c.device_id == device_id).values(values)
    )
    return _to_config((await connection.execute(statement.returning(device_config))).one())


def _to_config(row: Any) -> DeviceConfig:
    reported = None
    if row.reported_at is not None:
        reported = ReportedConfig(row.reported_version, row.reported_config, row.reported_at)
    return DeviceConfig(row.version, row.config, reported)
