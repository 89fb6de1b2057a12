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

    `prefix` is what the key begins with, `name` and `status` are the device's. `active` is False
    where the device is inactive or its user deactivated. Times are epoch milliseconds;
    `expires_ms` None is never.
    """

    key_id: int
    prefix: str
    device_id: int
    user_id: int
    name: str
    status: DeviceStatus
    active: bool
    created_ms: int
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
