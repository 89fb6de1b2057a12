"""Devices: registering them, reading them, and the keys they show."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from iotflow.devices.authentication import KeyAuthenticator
from iotflow.domain.callers import Caller, DeviceCaller, UserCaller
from iotflow.domain.devices import ApiKey, Device
from iotflow.domain.events import Event
from iotflow.domain.secrets import DEVICE_KEY_PREFIX, new_secret
from iotflow.errors import NotFoundError, StoreUnavailableError
from iotflow.stores.cache.local import LocalCache
from iotflow.stores.cache.protocol import CacheStore
from iotflow.stores.registry.protocol import DeviceQuery, NewDevice, NewKey, Registry

# A device keeps its owner; the time bounds how long a deleted one can still be read.
_OWNER_TTL_S = 1.0
_OWNER_CAPACITY = 100_000


@dataclass(frozen=True, slots=True)
class RegisteredDevice:
    """A new device with its API key, at the only moment when that is known."""

    device: Device
    api_key: str


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A new key's metadata with the key itself, at the only moment when that is known."""

    key: ApiKey
    api_key: str


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A device and whether it has been heard of lately."""

    device: Device
    is_online: bool


class Devices:
    """Every method that takes a caller treats another's device as one that does not exist."""

    def __init__(
        self,
        registry: Registry,
        cache: CacheStore,
        keys: KeyAuthenticator,
        *,
        online_s: int,
        limit: int,
        log_event: Callable[[Event], None],
        now: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._cache = cache
        self._keys = keys
        self._online = timedelta(seconds=online_s)
        self._limit = limit
        self._log_event = log_event
        self._now_s = now
        self._owners: LocalCache[int, int] = LocalCache(_OWNER_CAPACITY, _OWNER_TTL_S)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._now_s(), UTC)

    async def register(self, new: NewDevice) -> RegisteredDevice:
        """Create a device with its first key."""
        return (await self.register_many([new]))[0]

    async def register_many(self, new: Sequence[NewDevice]) -> list[RegisteredDevice]:
        """Create devices, each with its first key: all of them or, with an error, none."""
        if not new:
            return []
        secrets = [new_secret(DEVICE_KEY_PREFIX) for _ in new]
        keys = [NewKey(secret.digest, secret.prefix) for secret in secrets]
        created = await self._registry.create_devices(
            list(zip(new, keys, strict=True)), self._now(), self._limit
        )
        for device in created:
            self._audit("device.registered", device, {"name": device.name})
        return [
            RegisteredDevice(device, secret.secret)
            for device, secret in zip(created, secrets, strict=True)
        ]

    async def get(self, caller: Caller, device_id: int) -> DeviceView:
        """Raises NotFoundError."""
        device = await self.of(caller, device_id)
        return (await self._with_online([device]))[0]

    async def of(self, caller: Caller, device_id: int) -> Device:
        """A device that the caller may see.

        Raises:
            NotFoundError: there is none, or it belongs to someone else.
        """
        if isinstance(caller, DeviceCaller) and not caller.is_device(device_id):
            raise no_such_device()
        device = await self._registry.device(device_id)
        if device is None:
            raise no_such_device()
        if isinstance(caller, UserCaller) and not caller.may_act_for(device.user_id):
            raise no_such_device()
        return device

    async def require_readable(self, caller: Caller, device_ids: Sequence[int]) -> None:
        """Let the caller read telemetry of these devices.

        Raises:
            NotFoundError: one does not exist or belongs to someone else.
        """
        if isinstance(caller, DeviceCaller):
            if not all(caller.is_device(device_id) for device_id in device_ids):
                raise no_such_device()
            return
        for device_id in device_ids:
            owner_id = self._owners.get(device_id)
            # Another's device costs a look-up each time, as one that does not exist does.
            if owner_id is None or not caller.may_act_for(owner_id):
                owner_id = await self._look_up_owner(device_id)
            if not caller.may_act_for(owner_id):
                raise no_such_device()

    async def update(
        self,
        caller: UserCaller,
        device_id: int,
        changes: Mapping[str, Any],
        unchanged_since: datetime | None = None,
    ) -> DeviceView:
        """Set fields of a device, by their names. Its keys are looked up anew everywhere.

        Raises:
            NotFoundError: there is no such device for this caller.
            StaleVersionError: its `updated_at` is not `unchanged_since`, where that is given.
        """
        await self.of(caller, device_id)
        # A caller that gives up now must not leave an old status in some cache.
        device = await asyncio.shield(self._update(device_id, changes, unchanged_since))
        return (await self._with_online([device]))[0]

    async def _update(
        self, device_id: int, changes: Mapping[str, Any], unchanged_since: datetime | None
    ) -> Device:
        updated = await self._registry.update_device(
            device_id, changes, unchanged_since, self._now()
        )
        if updated is None:
            raise no_such_device()
        device, digests = updated
        if digests and not changes.keys().isdisjoint(("name", "status")):
            await self._keys.forget(digests)
        details = {"fields": ",".join(sorted(changes))}
        if "status" in changes:
            details["status"] = str(changes["status"])
        self._audit("device.updated", device, details)
        return device

    def forget_owners(self) -> None:
        """Ask the registry whose a device is: some are gone."""
        self._owners.clear()

    async def _look_up_owner(self, device_id: int) -> int:
        device = await self._registry.device(device_id)
        if device is None:
            raise no_such_device()
        self._owners.put(device_id, device.user_id)
        return device.user_id

    async def names(self, user_id: int, limit: int) -> dict[int, str]:
        """The names of a user's devices by id, at most `limit` of them."""
        return await self._registry.device_names(user_id, limit)

    async def page(self, query: DeviceQuery) -> tuple[list[DeviceView], bool]:
        """One page, and whether there is more."""
        devices, more = await self._registry.devices(query)
        return await self._with_online(devices), more

    async def _with_online(self, devices: Sequence[Device]) -> list[DeviceView]:
        try:
            online = await self._cache.online([device.id for device in devices])
        except StoreUnavailableError:
            online = set[int]()
        recent = self._now() - self._online
        return [
            DeviceView(
                device,
                device.id in online or (device.last_seen is not None and device.last_seen > recent),
            )
            for device in devices
        ]

    async def heartbeat(self, caller: DeviceCaller) -> datetime:
        """Raise the online flag of a device; returns when."""
        now = self._now()
        with suppress(StoreUnavailableError):  # last_seen tells the same, a second later
            await self._cache.mark_online(caller.key.device_id)
        return now

    async def keys(self, caller: UserCaller, device_id: int) -> list[ApiKey]:
        """The live keys of a device, oldest first."""
        device = await self.of(caller, device_id)
        return await self._registry.keys(device.id, self._now())

    async def rotate_key(
        self, caller: UserCaller, device_id: int, expires_in_s: int | None, overlap_s: int
    ) -> CreatedKey:
        """Give a device a new key; the old one goes on for `overlap_s`, 0 ends it at once.

        Raises:
            ConflictError: `too_many_keys`, the device has two live ones already.
        """
        device = await self.of(caller, device_id)
        now, secret = self._now(), new_secret(DEVICE_KEY_PREFIX)
        expires_at = None if expires_in_s is None else now + timedelta(seconds=expires_in_s)
        created, others = await self._registry.rotate_key(
            device.id,
            NewKey(secret.digest, secret.prefix, expires_at),
            now + timedelta(seconds=overlap_s),
            now,
        )
        await (self._keys.forget(others) if overlap_s else self._keys.revoke(others))
        self._audit("device.key_created", device, {"prefix": created.prefix})
        return CreatedKey(created, secret.secret)

    async def revoke_key(self, caller: UserCaller, device_id: int, key_id: int) -> None:
        """End a key: on this replica at once, on all within a second.

        Raises:
            NotFoundError: the device has no such live key.
        """
        device = await self.of(caller, device_id)
        digest = await self._registry.revoke_key(device.id, key_id, self._now())
        if digest is None:
            raise NotFoundError("This device has no such key.")
        # A caller that gives up now must not leave the key alive in some cache.
        await asyncio.shield(self._keys.revoke([digest]))
        self._audit("device.key_revoked", device, {"key_id": str(key_id)})

    def _audit(self, event_type: str, device: Device, details: dict[str, str]) -> None:
        timestamp_ms = int(self._now_s() * 1000)
        self._log_event(
            Event(uuid4().hex, event_type, timestamp_ms, device.user_id, device.id, details)
        )


def no_such_device() -> NotFoundError:
    """The one answer for devices that do not exist and for those of others."""
    return NotFoundError("There is no such device.")
