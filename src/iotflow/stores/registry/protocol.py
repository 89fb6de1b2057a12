"""The registry role: users, sessions, devices, keys. The relational truth.

Rules that hold for every adapter (tests/contract/test_registry.py): ids rise and a
deleted one never comes back; usernames and e-mail addresses are unique whatever their
case; all times are aware and in UTC; secrets come in as digests.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from iotflow.domain.configs import DeviceConfig
from iotflow.domain.devices import ApiKey, Device, DeviceStatus, KeyRecord
from iotflow.domain.groups import Group, Membership
from iotflow.domain.jobs import Job
from iotflow.domain.tokens import Invitation, PersonalToken, Scope
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
    """`family` is shared by all tokens that came from one login.

    `token_version` is the user's when the password was read; None where nothing was proved.
    """

    user_id: int
    family: str
    digest: str
    expires_at: datetime
    token_version: int | None = None


@dataclass(frozen=True, slots=True)
class NewPersonalToken:
    """`token_version` is the user's when the request for it was let in."""

    user_id: int
    name: str
    digest: str
    prefix: str
    scopes: frozenset[Scope]
    expires_at: datetime | None
    token_version: int


@dataclass(frozen=True, slots=True)
class NewInvitation:
    digest: str
    created_by: int | None
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class UserQuery:
    """Users in order of their ids. None means any; `text` is looked for in name and address."""

    limit: int
    text: str | None = None
    role: UserRole | None = None
    is_active: bool | None = None
    after_id: int = 0


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


@dataclass(frozen=True, slots=True)
class NewGroup:
    user_id: int
    name: str
    description: str | None = None
    color: str | None = None


@dataclass(frozen=True, slots=True)
class GroupQuery:
    """Groups in order of their ids; with `device_id`, those that it is in. None means any."""

    limit: int
    user_id: int | None = None
    device_id: int | None = None
    after_id: int = 0


@dataclass(frozen=True, slots=True)
class RegistryCounts:
    """How much there is. `devices` has every status."""

    users: int
    active_users: int
    admins: int
    devices: Mapping[DeviceStatus, int]
    groups: int


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

    async def create_user(
        self, new: NewUser, now: datetime, invitation_digest: str | None = None
    ) -> User:
        """Create a user, and use up an invitation where one is given.

        Raises:
            ConflictError: `username_taken`, `email_taken`; the invitation is not used then.
            NotAllowedError: `invalid_invitation`, it is unknown, used or expired.
        """
        ...

    async def user(self, user_id: int) -> User | None: ...

    async def credentials(self, username_or_email: str) -> tuple[User, str] | None:
        """The user of a name or address, with the password hash."""
        ...

    async def users(self, query: UserQuery) -> tuple[list[User], bool]:
        """One page, and whether there is more."""
        ...

    async def credentials_of(self, user_id: int) -> tuple[User, str] | None:
        """The user with the password hash."""
        ...

    async def update_user(
        self, user_id: int, changes: Mapping[str, Any], now: datetime
    ) -> User | None:
        """Set username, email or role; None where there is no such user.

        Raises:
            ConflictError: as `create_user`.
        """
        ...

    async def set_password(
        self, user_id: int, password_hash: str, kept_session: str | None, now: datetime
    ) -> User | None:
        """Replace the password; all personal tokens and all sessions but the kept one end."""
        ...

    async def set_user_active(
        self, user_id: int, is_active: bool, now: datetime
    ) -> tuple[User, list[str]] | None:
        """Switch an account on or off; returns the digests of its devices' live keys with it.

        Switched off, its personal tokens and its sessions end.
        """
        ...

    async def note_login(self, user_id: int, now: datetime, password_hash: str | None) -> None:
        """Stamp last_login_at; `password_hash` replaces an outdated one."""
        ...

    async def add_refresh_token(self, new: NewRefreshToken, now: datetime) -> None:
        """Also forgets tokens that expired long ago, a bounded number of them.

        Raises:
            NotFoundError: there is no such user, or none of that `token_version`.
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

    async def counts(self) -> RegistryCounts: ...

    # personal tokens and invitations

    async def add_personal_token(
        self, new: NewPersonalToken, limit: int, now: datetime
    ) -> PersonalToken:
        """Also forgets the user's expired ones.

        Raises:
            NotFoundError: there is no such user, or none of that `token_version`.
            ConflictError: `too_many_tokens`, the user has `limit` live ones.
        """
        ...

    async def personal_tokens(
        self, user_id: int, after_id: int, limit: int, now: datetime
    ) -> tuple[list[PersonalToken], bool]:
        """A page of a user's live tokens in order of their ids, and whether there is more."""
        ...

    async def personal_token(self, digest: str, now: datetime) -> tuple[PersonalToken, User] | None:
        """What a live token opens; None for unknown, deleted and expired ones."""
        ...

    async def delete_personal_token(self, user_id: int, token_id: int) -> str | None:
        """End a token; returns its digest, or None where the user has no such token."""
        ...

    async def note_token_used(self, token_id: int, now: datetime) -> None:
        """Stamp a token's last use."""
        ...

    async def add_invitation(self, new: NewInvitation, now: datetime) -> Invitation:
        """Also forgets those that have expired."""
        ...

    # devices and keys

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

    # groups

    async def create_group(self, new: NewGroup, now: datetime, limit: int | None = None) -> Group:
        """Create a group.

        Raises:
            NotFoundError: there is no such user.
            ConflictError: `too_many_groups`, the user would have more than `limit`.
        """
        ...

    async def group(self, group_id: int) -> Group | None: ...

    async def groups(self, query: GroupQuery) -> tuple[list[Group], bool]:
        """One page, and whether there is more."""
        ...

    async def update_group(
        self,
        group_id: int,
        name: str,
        description: str | None,
        color: str | None,
        now: datetime,
    ) -> Group | None:
        """Replace what a group says of itself; None where there is no such group."""
        ...

    async def delete_group(self, group_id: int) -> bool:
        """Delete a group, not its devices; whether there was one."""
        ...

    async def add_to_group(
        self, group_id: int, device_ids: Collection[int], now: datetime
    ) -> dict[int, Membership]:
        """Add devices of the group's user; says what became of each.

        Raises:
            NotFoundError: there is no such group.
        """
        ...

    async def remove_from_group(self, group_id: int, device_id: int) -> bool:
        """Whether the device was in the group."""
        ...

    # configuration

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

    # deletions and their jobs

    async def delete_device(
        self, device_id: int, requested_by: int, unchanged_since: datetime | None, now: datetime
    ) -> Job | None:
        """Delete a device with keys, config and memberships, and make the job of the rest.

        One transaction: what is deleted has a job, and whatever has a job is deleted. None
        where there is no such device.

        Raises:
            StaleVersionError: as `update_device`.
        """
        ...

    async def delete_user(self, user_id: int, requested_by: int, now: datetime) -> Job | None:
        """As `delete_device`, for a user with all devices, groups and sessions."""
        ...

    async def job(self, job_id: int) -> Job | None: ...

    async def claim_job(self, owner: str, now: datetime, lease_until: datetime) -> Job | None:
        """The job that has been due for longest and that nobody else works at, as running."""
        ...

    async def save_job(self, job: Job, owner: str, lease_until: datetime | None) -> bool:
        """Keep how far a job is, and renew its lease or (None) give it up.

        False, and nothing kept, where someone else has taken the job over.
        """
        ...

    async def job_devices(self, job_id: int, after_id: int, limit: int) -> list[int]:
        """The deleted devices of a job whose ids lie above `after_id`, in order."""
        ...

    async def job_keys(self, job_id: int, after_digest: str, limit: int) -> list[str]:
        """Digests of the deleted keys of a job, in order."""
        ...

    async def forget_jobs(self, finished_before: datetime) -> None:
        """Drop the lists of jobs that are never due again, and old jobs; a bounded number."""
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
