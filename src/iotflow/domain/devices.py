"""Devices and the keys that they show."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import msgspec


class DeviceStatus(StrEnum):
    ACTIVE = "active"
    INACTIVE = "inactive"
    MAINTENANCE = "maintenance"


class KeyRecord(msgspec.Struct, frozen=True, gc=False):
    """All that a request by a device key needs to know, as caches keep it.

    `active` is False where the device is inactive or its user deactivated.
    `expires_ms` is epoch milliseconds, None for never.
    """

    key_id: int
    device_id: int
    user_id: int
    name: str
    status: DeviceStatus
    active: bool
    expires_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key's metadata. The key itself is shown once and never kept."""

    id: int
    device_id: int
    prefix: str
    created_at: datetime
    last_used_at: datetime | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """A device as its owner sees it. `key` is its newest live key."""

    id: int
    user_id: int
    name: str
    status: DeviceStatus
    created_at: datetime
    updated_at: datetime
    description: str | None = None
    device_type: str | None = None
    location: str | None = None
    labels: dict[str, str] = field(default_factory=dict[str, str])
    firmware_version: str | None = None
    hardware_version: str | None = None
    last_seen: datetime | None = None
    key: ApiKey | None = None
