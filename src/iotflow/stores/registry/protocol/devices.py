"""Devices with their keys and configuration."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from iotflow.domain.configs import DeviceConfig
from iotflow.domain.devices import ApiKey, Device, DeviceStatus, KeyRecord


@dataclass(frozen=True, slots=True)
class NewDevice:
    user_id: int
    name: str
    description: str | None = None
    device_type: str | None = None
    location: str | None = None
    firmware_version: str | None = None
    hardware_version: str | None = None
    labels: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key as it is kept: its digest (SHA-256, lower-case hex) and a prefix to know it by."""

    digest: str
    prefix: str
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DeviceQuery:
    """Devices in order of their ids. None means any; `user_id` None means everyone's."""

    limit: int
    user_id: int | None = None
    status: DeviceStatus | None = None
    device_type: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    text: str | None = None
    after_id: int = 0
    group_id: int | None = None


class Devices(Protocol):
    """What sends, by which key it is known, and how it is to be set up."""

    async def create_device(self, new: NewDevice, key: NewKey, now: datetime) -> Device:
        """Raises NotFoundError where there is no such user."""
        ...

    async def create_devices(
        self, new: Sequence[tuple[NewDevice, NewKey]], now: datetime, limit: int | None = None
    ) -> list[Device]:
        """Create devices, each with its first key, in one transaction; in the order given.

        Raises:
            ConflictError: `too_many_devices`, a user would have more than `limit`.
            NotFoundError: one of the users is not there; no device was created.
        """
        ...

    async def device(self, device_id: int) -> Device | None: ...

    async def devices(self, query: DeviceQuery) -> tuple[list[Device], bool]:
        """One page, and whether there is more."""
        ...

    async def known_devices(self, device_ids: Collection[int]) -> set[int]:
        """Those of the ids that a device has."""
        ...

    async def live_keys(self, device_ids: Collection[int], now: datetime) -> list[str]:
        """The digests of all keys of these devices that can be used."""
        ...

    async def device_names(self, user_id: int, limit: int) -> dict[int, str]:
        """Names by id of a user's devices, at most `limit` of them."""
        ...

    async def key_record(self, digest: str, now: datetime) -> KeyRecord | None:
        """What a live key opens; None for unknown, revoked and expired ones."""
        ...

    async def keys(self, device_id: int, now: datetime) -> list[ApiKey]:
        """The live keys of a device, oldest first."""
        ...

    async def rotate_key(
        self, device_id: int, new: NewKey, others_end_at: datetime, now: datetime
    ) -> tuple[ApiKey, list[str]]:
        """Add a key and let the other live one end; returns it and the digests of the others.

        Raises:
            NotFoundError: there is no such device.
            ConflictError: `too_many_keys`, two that live past now are there already.
        """
        ...

    async def revoke_key(self, device_id: int, key_id: int, now: datetime) -> str | None:
        """End a live key; returns its digest, or None where the device has no such key."""
        ...

    async def note_seen(self, seen_ms_by_key: Mapping[int, int]) -> None:
        """Stamp keys' last use and their devices' last_seen, never backwards."""
        ...

    async def update_device(
        self,
        device_id: int,
        changes: Mapping[str, Any],
        unchanged_since: datetime | None,
        now: datetime,
    ) -> tuple[Device, list[str]] | None:
        """Set fields by their names; returns the device and the digests of its keys.

        `updated_at` rises with every call. None where there is no such device.

        Raises:
            StaleVersionError: its `updated_at` is not `unchanged_since`, where that is given.
        """
        ...

    async def device_config(self, device_id: int) -> DeviceConfig:
        """An empty one of version 0 where none was ever set."""
        ...

    async def put_device_config(
        self, device_id: int, config: str, expected: Collection[int] | None
    ) -> DeviceConfig:
        """Set the desired configuration (the text of a JSON object); its version rises by one.

        Raises:
            NotFoundError: there is no such device.
            StaleVersionError: its version is none of those `expected`, where they are given.
        """
        ...

    async def report_device_config(
        self, device_id: int, version: int, config: str, now: datetime
    ) -> DeviceConfig:
        """Note what a device has applied.

        Raises:
            NotFoundError: there is no such device.
        """
        ...
