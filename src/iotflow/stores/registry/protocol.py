"""The registry role: users, sessions, devices, keys. The relational truth.

Rules that hold for every adapter (tests/contract/test_registry.py): ids rise and a
deleted one never comes back; usernames and e-mail addresses are unique whatever their
case; all times are aware and in UTC; secrets come in as digests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from iotflow.domain.devices import ApiKey, Device, DeviceStatus, KeyRecord
from iotflow.domain.users import User, UserRole
from iotflow.stores.lifecycle import Store


@dataclass(frozen=True, slots=True)
class NewUser:
    username: str
    email: str
    password_hash: str
    role: UserRole = UserRole.USER


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
class NewRefreshToken:
    """`family` is shared by all tokens that came from one login."""

    user_id: int
    family: str
    digest: str
    expires_at: datetime


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


@dataclass(frozen=True, slots=True)
class Slot:
    """A process's place among those that run at once.

    `lanes` is by how many places its holder counts: a power of two above every `number`.
    """

    number: int
    owner: str
    lanes: int
    renewed_at: datetime


class Registry(Store, Protocol):
    """Every method raises StoreUnavailableError while the store is away."""

    # users and sessions

    async def create_user(self, new: NewUser, now: datetime) -> User:
        """Raises ConflictError (`username_taken`, `email_taken`)."""
        ...

    async def user(self, user_id: int) -> User | None: ...

    async def credentials(self, username_or_email: str) -> tuple[User, str] | None:
        """The user of a name or address, with the password hash."""
        ...

    async def note_login(self, user_id: int, now: datetime, password_hash: str | None) -> None:
        """Stamp last_login_at; `password_hash` replaces an outdated one."""
        ...

    async def add_refresh_token(self, new: NewRefreshToken, now: datetime) -> None:
        """Also forgets tokens that expired long ago, a bounded number of them.

        Raises:
            NotFoundError: there is no such user.
        """
        ...

    async def rotate_refresh_token(
        self, digest: str, successor_digest: str, expires_at: datetime, now: datetime
    ) -> tuple[User, str] | None:
        """Exchange a live token for its successor in the same family; returns user and family.

        None where the token opens nothing. One that was used before ends its whole family.
        """
        ...

    async def end_session(self, digest: str, now: datetime) -> None:
        """Revoke the family of a refresh token; unknown ones are ignored."""
        ...

    # devices and keys

    async def create_device(self, new: NewDevice, key: NewKey, now: datetime) -> Device:
        """Raises NotFoundError where there is no such user."""
        ...

    async def create_devices(
        self, new: Sequence[tuple[NewDevice, NewKey]], now: datetime
    ) -> list[Device]:
        """Create devices, each with its first key, in one transaction; in the order given.

        Raises:
            NotFoundError: one of the users is not there; no device was created.
        """
        ...

    async def device(self, device_id: int) -> Device | None: ...

    async def devices(self, query: DeviceQuery) -> tuple[list[Device], bool]:
        """One page, and whether there is more."""
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

    # processes

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
        """Take a free slot below `limit`; returns all that are held now, or None for no room.

        `dead` holders are forgotten unless they have renewed since the time given with them;
        `alone` says that all are. The lowest number is taken, rather not that of one that
        is forgotten now. A released one is free two seconds later.
        """
        ...

    async def renew_slot(
        self, owner: str, min_lanes: int, now: datetime, dead: Mapping[str, datetime]
    ) -> list[Slot] | None:
        """Keep a slot, with as many lanes as are needed now; returns all, or None if it is gone."""
        ...

    async def release_slot(self, owner: str, now: datetime) -> None:
        """Give a slot up: its holder issues no more."""
        ...

    async def cache_epoch(self) -> int:
        """The epoch of what caches may hold (see `stores.cache.protocol.Epoch`); 1 at first."""
        ...

    async def raise_cache_epoch(self) -> int:
        """Begin a new epoch, whichever replica asks; returns it."""
        ...
