"""What is desired of a device's configuration, and what the device reports to have applied."""

import asyncio
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from uuid import uuid4

from iotflow.devices.service import Devices
from iotflow.domain.callers import DeviceCaller, UserCaller
from iotflow.domain.configs import DeviceConfig
from iotflow.domain.events import Event
from iotflow.stores.registry.protocol import Registry


class DeviceConfigs:
    """Configurations are texts of JSON objects, kept and given as they came."""

    def __init__(
        self,
        registry: Registry,
        devices: Devices,
        *,
        log_event: Callable[[Event], None],
        now: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._devices = devices
        self._log_event = log_event
        self._now_s = now

    async def get(self, caller: UserCaller, device_id: int) -> DeviceConfig:
        """Raises NotFoundError."""
        await self._devices.of(caller, device_id)
        return await self._registry.device_config(device_id)

    async def put(
        self, caller: UserCaller, device_id: int, config: str, expected: Collection[int] | None
    ) -> DeviceConfig:
        """Set what is desired; the version rises by one.

        Raises:
            NotFoundError: there is no such device for this caller.
            StaleVersionError: the version is none of those `expected`, where they are given.
        """
        device = await self._devices.of(caller, device_id)
        # A caller that gives up now must not leave a change without its event.
        return await asyncio.shield(self._put(device.user_id, device_id, config, expected))

    async def _put(
        self, user_id: int, device_id: int, config: str, expected: Collection[int] | None
    ) -> DeviceConfig:
        done = await self._registry.put_device_config(device_id, config, expected)
        at_ms = int(self._now_s() * 1000)
        details = {"version": str(done.version)}
        self._log_event(
            Event(uuid4().hex, "device.config_changed", at_ms, user_id, device_id, details)
        )
        return done

    async def own(self, caller: DeviceCaller) -> DeviceConfig:
        """What is desired of the device that asks."""
        return await self._registry.device_config(caller.key.device_id)

    async def report(self, caller: DeviceCaller, version: int, config: str) -> DeviceConfig:
        """Note what the device has applied."""
        now = datetime.fromtimestamp(self._now_s(), UTC)
        return await self._registry.report_device_config(caller.key.device_id, version, config, now)
