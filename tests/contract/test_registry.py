"""The contract of the registry role, on every adapter (stores/registry/protocol.py)."""

import asyncio
import inspect
import itertools
from collections.abc import Awaitable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from secrets import token_hex
from typing import Any, TypeVar

import pytest

from iotflow.domain.configs import DeviceConfig, ReportedConfig
from iotflow.domain.devices import Device, DeviceStatus, KeyRecord
from iotflow.domain.groups import Group, Membership
from iotflow.domain.jobs import Job, JobKind, JobStatus
from iotflow.domain.times import to_ms
from iotflow.domain.tokens import Scope
from iotflow.domain.users import User, UserRole
from iotflow.errors import (
    ConflictError,
    NotAllowedError,
    NotFoundError,
    StaleVersionError,
    StoreUnavailableError,
)
from iotflow.stores.registry.protocol import (
    DeviceQuery,
    GroupQuery,
    JobQuery,
    NewDevice,
    NewGroup,
    NewInvitation,
    NewJob,
    NewKey,
    NewPersonalToken,
    NewRefreshToken,
    NewUser,
    Registry,
    Reused,
    Rotated,
    UserQuery,
)
from tests.contract.registry_adapters import RegistryHarness

T = TypeVar("T")

NOW = datetime(2026, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
INDIA = timezone(timedelta(hours=5, minutes=30))
NO_ID = 2**62


@pytest.fixture
def store(registry: RegistryHarness) -> Registry:
    return registry.store


@pytest.fixture
async def user(store: Registry) -> User:
    return await create_user(store)


@pytest.fixture
async def device(store: Registry, user: User) -> Device:
    return await create_device(store, user)


async def create_user(store: Registry, name: str | None = None, email: str = "") -> User:
    name = name or f"user-{token_hex(6)}"
    return await store.create_user(NewUser(name, email or f"{name}@example.com", "hash"), NOW)


def new_token(
    user_id: int, expires_at: datetime | None = None, version: int = 0
) -> NewPersonalToken:
    return NewPersonalToken(
        user_id, "script", token_hex(32), "iotp_x", frozenset({Scope.READ}), expires_at, version
    )


def new_key(expires_at: datetime | None = None) -> NewKey:
    return NewKey(token_hex(32), "iotd_" + token_hex(4), expires_at)


async def create_device(
    store: Registry, user: User, key: NewKey | None = None, **fields: Any
) -> Device:
    fields.setdefault("name", "boiler")
    return await store.create_device(NewDevice(user.id, **fields), key or new_key(), NOW)


async def outcomes(*calls: Awaitable[T]) -> tuple[list[T], list[ConflictError]]:
    """Answers and conflicts of calls made at once. Any other error is raised."""
    done = await asyncio.gather(*calls, return_exceptions=True)
    answers: list[Any] = []
    conflicts: list[ConflictError] = []
    for each in done:
        if isinstance(each, ConflictError):
            conflicts.append(each)
        elif isinstance(each, BaseException):
            raise each
        else:
            answers.append(each)
    return answers, conflicts


def is_utc(moment: datetime | None) -> bool:
    return moment is not None and moment.utcoffset() == timedelta(0)


def a_job() -> Job:
    kind, status = JobKind.DEVICE_DELETION, JobStatus.PENDING
    return Job(1, kind, status, 1, 1, {}, 0, 0, 0, NOW, NOW)


def account_calls(store: Registry) -> list[Any]:
    return [
        store.create_user(NewUser("x", "x@example.com", "hash"), NOW),
        store.user(1),
        store.credentials("x"),
        store.note_login(1, NOW, None),
        store.add_refresh_token(NewRefreshToken(1, "f", "d", NOW), NOW),
        store.rotate_refresh_token("d", "e", NOW, NOW),
        store.end_session("d", NOW),
        store.users(UserQuery(1)),
        store.credentials_of(1),
        store.update_user(1, {"username": "x"}, NOW),
        store.set_password(1, "hash", None, NOW),
        store.set_user_active(1, False, NOW),
        store.add_personal_token(new_token(1), 1, NOW),
        store.personal_tokens(1, 0, 1, NOW),
        store.personal_token("d", NOW),
        store.delete_personal_token(1, 1),
        store.note_token_used(1, NOW),
        store.add_invitation(NewInvitation("d", None, NOW), NOW),
        store.counts(),
    ]


def device_calls(store: Registry) -> list[Any]:
    return [
        store.create_device(NewDevice(1, "x"), new_key(), NOW),
        store.create_devices([(NewDevice(1, "x"), new_key())], NOW),
        store.device(1),
        store.devices(DeviceQuery(1)),
        store.device_names(1, 1),
        store.key_record("d", NOW),
        store.keys(1, NOW),
        store.rotate_key(1, new_key(), NOW, NOW),
        store.revoke_key(1, 1, NOW),
        store.note_seen({1: 1}),
        store.update_device(1, {"name": "x"}, None, NOW),
        store.device_config(1),
        store.put_device_config(1, "{}", None),
        store.report_device_config(1, 1, "{}", NOW),
        store.known_devices([1]),
        store.live_keys([1], NOW),
    ]


def group_calls(store: Registry) -> list[Any]:
    return [
        store.create_group(NewGroup(1, "x"), NOW),
        store.group(1),
        store.groups(GroupQuery(1)),
        store.update_group(1, "x", None, None, NOW),
        store.delete_group(1),
        store.add_to_group(1, [1], NOW),
        store.remove_from_group(1, 1),
    ]


def job_calls(store: Registry) -> list[Any]:
    return [
        store.delete_device(1, 1, None, NOW),
        store.delete_user(1, 1, NOW),
        store.job(1),
        store.claim_job("x", NOW, NOW),
        store.save_job(a_job(), "x", None),
        store.job_devices(1, 0, 1),
        store.job_keys(1, "", 1),
        store.forget_jobs(NOW),
        store.jobs(JobQuery(1)),
        store.add_job(NewJob(JobKind.EVENT_REPLAY, 0, 0, {}), NOW),
        store.amend_job(1, {}, NOW, NOW),
        store.being_deleted([1]),
    ]


def process_calls(store: Registry) -> list[Any]:
    return [
        store.ping(),
        store.claim_slot("x", 1, 1, NOW, {}),
        store.renew_slot("x", 1, NOW, {}),
        store.release_slot("x", NOW),
        store.cache_epoch(),
        store.raise_cache_epoch(),
    ]


def calls(store: Registry) -> list[Any]:
    """A call of every method."""
    return [
        *account_calls(store),
        *device_calls(store),
        *group_calls(store),
        *job_calls(store),
        *process_calls(store),
    ]


class TestLifecycle:
    async def test_ping_answers_and_the_backend_is_named(self, store: Registry) -> None:
        await store.ping()
        assert store.backend

    async def test_every_method_is_called_below(self, registry: RegistryHarness) -> None:
        made = calls(registry.unopened())
        for call in made:
            call.close()
        methods = inspect.getmembers(Registry, inspect.iscoroutinefunction)
        lifecycle = {"open", "close", "statistics"}
        assert {call.__name__ for call in made} == {name for name, _ in methods} - lifecycle

    async def test_nothing_works_before_it_is_opened(self, registry: RegistryHarness) -> None:
        for call in calls(registry.unopened()):
            with pytest.raises(StoreUnavailableError):
                await call

    async def test_nothing_works_after_it_was_closed(self, registry: RegistryHarness) -> None:
        store = registry.unopened()
        await store.open()
        await store.ping()
        await store.close()
        for call in calls(store):
            with pytest.raises(StoreUnavailableError):
                await call

    async def test_several_may_open_at_once_and_see_the_same(
        self, registry: RegistryHarness, user: User
    ) -> None:
        others = [registry.unopened() for _ in range(3)]
        await asyncio.gather(*(other.open() for other in others))
        try:
            assert [await other.user(user.id) for other in others] == [user] * 3
        finally:
            for other in others:
                await other.close()


class TestTimes:
    async def test_they_come_back_aware_and_in_utc(self, store: Registry) -> None:
        there = NOW.astimezone(INDIA)
        name = token_hex(8)
        user = await store.create_user(NewUser(name, f"{name}@example.com", "hash"), there)
        assert (user.created_at, user.updated_at) == (NOW, NOW)
        await store.note_login(user.id, there, None)
        key = new_key(there + DAY)
        created = await store.create_device(NewDevice(user.id, "x"), key, there)
        assert created.key is not None
        await store.note_seen({created.key.id: to_ms(there)})
        found, device = await store.user(user.id), await store.device(created.id)
        assert found is not None
        assert device is not None
        assert device.key is not None
        moments = [
            user.created_at,
            found.created_at,
            found.last_login_at,
            device.created_at,
            device.updated_at,
            device.last_seen,
            device.key.created_at,
            device.key.last_used_at,
            device.key.expires_at,
        ]
        assert all(is_utc(moment) for moment in moments)
        assert device.key.expires_at == NOW + DAY
        assert found.last_login_at == NOW

    async def test_naive_ones_are_refused(self, registry: RegistryHarness, user: User) -> None:
        store = registry.store
        await registry.free_slots()
        naive = datetime(2026, 1, 1)  # noqa: DTZ001 - what is tested
        refused = [
            store.create_user(NewUser("naive", "naive@example.com", "hash"), naive),
            store.note_login(user.id, naive, None),
            store.add_refresh_token(NewRefreshToken(user.id, "f", token_hex(32), naive), NOW),
            store.create_device(NewDevice(user.id, "x"), new_key(naive), NOW),
            store.key_record("d", naive),
            store.claim_slot("x", 1, 1, naive, {}),
        ]
        for call in refused:
            with pytest.raises(ValueError, match="zone"):
                await call
        assert await store.credentials("naive") is None
        assert await store.devices(DeviceQuery(10, user.id)) == ([], False)


class TestUsers:
    async def test_a_user_comes_back_whole(self, store: Registry) -> None:
        name = "Jörg-" + token_hex(6)
        new = NewUser(name, f"{name}@Example.com", "hash", UserRole.ADMIN)
        user = await store.create_user(new, NOW)
        assert user == User(user.id, name, new.email, UserRole.ADMIN, True, NOW, NOW)
        assert await store.user(user.id) == user
        assert await store.credentials(name) == (user, "hash")

    async def test_unknown_ones_are_none(self, store: Registry) -> None:
        assert await store.user(NO_ID) is None
        assert await store.credentials(token_hex(8)) is None
        assert await store.credentials("") is None

    async def test_sign_in_is_by_name_or_address_in_any_case(self, store: Registry) -> None:
        name = "MixedÉCase-" + token_hex(4)
        user = await create_user(store, name, f"{name}@example.com")
        for spelling in (name, name.upper(), name.lower(), f"{name}@EXAMPLE.com".swapcase()):
            assert await store.credentials(spelling) == (user, "hash")

    async def test_names_are_unique_in_any_case(self, store: Registry) -> None:
        name = "Élan-" + token_hex(6)
        await create_user(store, name)
        for taken in (name, name.upper(), name.lower()):
            with pytest.raises(ConflictError) as raised:
                await create_user(store, taken, f"{token_hex(6)}@example.com")
            assert raised.value.error_code == "username_taken"

    async def test_addresses_are_unique_in_any_case(self, store: Registry) -> None:
        email = f"{token_hex(6)}@example.com"
        await create_user(store, None, email)
        for taken in (email, email.upper(), email.title()):
            with pytest.raises(ConflictError) as raised:
                await create_user(store, None, taken)
            assert raised.value.error_code == "email_taken"

    async def test_of_many_at_once_one_gets_the_name(self, store: Registry) -> None:
        name = "race-" + token_hex(6)
        spellings = [name, name.upper(), name.title()] * 5
        created, conflicts = await outcomes(
            *(create_user(store, each, f"{token_hex(6)}@example.com") for each in spellings)
        )
        assert len(created) == 1
        assert {conflict.error_code for conflict in conflicts} == {"username_taken"}
        found = await store.credentials(name)
        assert found is not None
        assert found[0] == created[0]

    async def test_of_many_at_once_one_gets_the_address(self, store: Registry) -> None:
        email = f"{token_hex(6)}@example.com"
        created, conflicts = await outcomes(*(create_user(store, None, email) for _ in range(12)))
        assert len(created) == 1
        assert {conflict.error_code for conflict in conflicts} == {"email_taken"}

    async def test_a_login_is_stamped_and_may_replace_the_hash(
        self, store: Registry, user: User
    ) -> None:
        assert user.last_login_at is None
        await store.note_login(user.id, NOW + HOUR, None)
        found, password_hash = await store.credentials(user.username) or (None, None)
        assert found is not None
        assert (found.last_login_at, password_hash) == (NOW + HOUR, "hash")
        await store.note_login(user.id, NOW + DAY, "better")
        found, password_hash = await store.credentials(user.username) or (None, None)
        assert found is not None
        assert (found.last_login_at, password_hash) == (NOW + DAY, "better")


class TestIds:
    async def test_a_deleted_users_id_never_comes_back(self, registry: RegistryHarness) -> None:
        store = registry.store
        gone = await create_user(store)
        await registry.delete_user(gone.id)
        assert await store.user(gone.id) is None
        assert (await create_user(store)).id > gone.id

    async def test_neither_do_those_of_devices_and_keys(self, registry: RegistryHarness) -> None:
        store = registry.store
        gone, stays = await create_user(store), await create_user(store)
        old = await create_device(store, gone)
        await registry.delete_user(gone.id)
        assert await store.device(old.id) is None
        new = await create_device(store, stays)
        assert new.id > old.id
        assert old.key is not None
        assert new.key is not None
        assert await store.keys(old.id, NOW) == []
        assert new.key.id > old.key.id

    async def test_with_a_user_go_devices_keys_and_tokens(
        self, registry: RegistryHarness, user: User
    ) -> None:
        store, key = registry.store, new_key()
        device = await create_device(store, user, key)
        digest = await signed_in(store, user)
        await registry.delete_user(user.id)
        assert await store.device(device.id) is None
        assert await store.key_record(key.digest, NOW) is None
        assert await rotate(store, digest) is None

    async def test_ids_rise(self, store: Registry, user: User) -> None:
        ids = [(await create_device(store, user)).id for _ in range(5)]
        assert ids == sorted(set(ids))


async def signed_in(
    store: Registry, user: User, expires_at: datetime = NOW + DAY, now: datetime = NOW
) -> str:
    """The digest of a family's first token."""
    digest = token_hex(32)
    await store.add_refresh_token(NewRefreshToken(user.id, token_hex(16), digest, expires_at), now)
    return digest


async def rotate(store: Registry, digest: str, now: datetime = NOW) -> str | None:
    """The successor's digest, where the token opened something."""
    successor = token_hex(32)
    opened = await store.rotate_refresh_token(digest, successor, now + DAY, now)
    return successor if isinstance(opened, Rotated) else None


async def rotated(store: Registry, digest: str, now: datetime = NOW) -> str:
    successor = await rotate(store, digest, now)
    assert successor is not None
    return successor


class TestRefreshTokens:
    async def test_a_live_token_is_exchanged_once(self, store: Registry, user: User) -> None:
        digest, successor, family = token_hex(32), token_hex(32), token_hex(16)
        await store.add_refresh_token(NewRefreshToken(user.id, family, digest, NOW + DAY), NOW)
        opened = await store.rotate_refresh_token(digest, successor, NOW + 2 * DAY, NOW)
        assert opened == (user, family)
        assert await store.rotate_refresh_token(
            successor, token_hex(32), NOW + 3 * DAY, NOW + DAY
        ) == (user, family)

    async def test_unknown_and_expired_ones_open_nothing(self, store: Registry, user: User) -> None:
        assert await rotate(store, token_hex(32)) is None
        digest = await signed_in(store, user, NOW + HOUR)
        assert await rotate(store, digest, NOW + HOUR) is None
        assert await rotate(store, digest, NOW + HOUR - SECOND) is not None

    async def test_a_successor_has_the_expiry_that_it_was_given(
        self, store: Registry, user: User
    ) -> None:
        successor = await rotated(store, await signed_in(store, user))
        assert await rotate(store, successor, NOW + DAY) is None
        assert await rotate(store, successor, NOW + DAY - SECOND) is not None

    async def test_reuse_ends_the_whole_family(self, store: Registry, user: User) -> None:
        first = await signed_in(store, user)
        second = await rotated(store, first)
        third = await rotated(store, second)
        assert await store.rotate_refresh_token(first, token_hex(32), NOW + DAY, NOW) == Reused(
            user.id
        )
        assert await rotate(store, third) is None
        again = await store.rotate_refresh_token(first, token_hex(32), NOW + DAY, NOW)
        assert again is None, "its family had ended already"

    async def test_reuse_leaves_other_families_alone(self, store: Registry, user: User) -> None:
        first, other = await signed_in(store, user), await signed_in(store, user)
        await rotated(store, first)
        assert await rotate(store, first) is None
        assert await rotate(store, other) is not None

    async def test_a_token_that_expired_unused_ends_nothing(
        self, store: Registry, user: User
    ) -> None:
        family, digests = token_hex(16), [token_hex(32), token_hex(32)]
        for digest, expires_at in zip(digests, (NOW + HOUR, NOW + 30 * DAY), strict=True):
            await store.add_refresh_token(NewRefreshToken(user.id, family, digest, expires_at), NOW)
        assert await rotate(store, digests[0], NOW + 2 * HOUR) is None
        assert await rotate(store, digests[1], NOW + 2 * HOUR) is not None

    async def test_of_many_at_once_exactly_one_is_served(self, store: Registry, user: User) -> None:
        digest = await signed_in(store, user)
        answers, _ = await outcomes(*(rotate(store, digest) for _ in range(12)))
        successors = [each for each in answers if each is not None]
        assert len(successors) == 1
        # The others showed a used token, as a thief would: the family has ended.
        assert await rotate(store, successors[0]) is None

    async def test_signing_out_ends_the_family(self, store: Registry, user: User) -> None:
        first = await signed_in(store, user)
        second = await rotated(store, first)
        other = await signed_in(store, user)
        assert await store.end_session(second, NOW) == user.id
        assert await store.end_session(first, NOW) is None, "it had ended already"
        assert await rotate(store, second) is None
        assert await rotate(store, other) is not None

    async def test_an_outdated_token_signs_out_as_well(self, store: Registry, user: User) -> None:
        first = await signed_in(store, user)
        second = await rotated(store, first)
        await store.end_session(first, NOW)
        assert await rotate(store, second) is None

    async def test_signing_out_with_anything_else_is_ignored(
        self, store: Registry, user: User
    ) -> None:
        digest = await signed_in(store, user)
        assert await store.end_session(token_hex(32), NOW) is None
        assert await store.end_session("", NOW) is None
        assert await rotate(store, digest) is not None

    async def test_a_deactivated_user_gets_none(
        self, registry: RegistryHarness, user: User
    ) -> None:
        digest = await signed_in(registry.store, user)
        await registry.deactivate(user_id=user.id)
        assert await rotate(registry.store, digest) is None

    async def test_expired_ones_are_known_for_a_while_then_forgotten(
        self, store: Registry, user: User
    ) -> None:
        families: list[tuple[str, str]] = []
        for _ in range(2):
            first, second = token_hex(32), token_hex(32)
            new = NewRefreshToken(user.id, token_hex(16), first, NOW + HOUR)
            await store.add_refresh_token(new, NOW)
            assert await store.rotate_refresh_token(first, second, NOW + 90 * DAY, NOW)
            families.append((first, second))
        await signed_in(store, user, NOW + 90 * DAY, NOW + DAY)
        assert await rotate(store, families[0][0], NOW + DAY) is None
        assert await rotate(store, families[0][1], NOW + DAY) is None, "a replay went unnoticed"
        for _ in range(5):  # each forgets a bounded number
            await signed_in(store, user, NOW + 90 * DAY, NOW + 30 * DAY)
        assert await rotate(store, families[1][0], NOW + 30 * DAY) is None
        assert await rotate(store, families[1][1], NOW + 30 * DAY) is not None


class TestDevices:
    async def test_a_device_comes_back_whole(self, store: Registry, user: User) -> None:
        key = new_key(NOW + DAY)
        new = NewDevice(
            user.id,
            "Kessel 🌡",
            description="in the cellar\nleft",
            device_type="boiler",
            location="Köln",
            firmware_version="1.2.3-rc1",
            hardware_version="B",
            labels={"site": "north", "a/b.c-d": "ü \"quoted\" 'x' %", "empty": ""},
        )
        device = await store.create_device(new, key, NOW)
        assert device.key is not None
        assert (device.key.device_id, device.key.prefix) == (device.id, key.prefix)
        assert (device.key.created_at, device.key.expires_at) == (NOW, NOW + DAY)
        assert device == Device(
            device.id,
            user.id,
            new.name,
            DeviceStatus.ACTIVE,
            NOW,
            NOW,
            new.description,
            new.device_type,
            new.location,
            new.labels,
            new.firmware_version,
            new.hardware_version,
            None,
            device.key,
        )
        assert await store.device(device.id) == device
        assert (await store.devices(DeviceQuery(10, user.id)))[0] == [device]

    async def test_unknown_ones_are_none(self, store: Registry, user: User) -> None:
        assert await store.device(NO_ID) is None
        assert await store.devices(DeviceQuery(10, user.id)) == ([], False)
        assert await store.device_names(user.id, 10) == {}

    async def test_names_need_not_be_unique(self, store: Registry, user: User) -> None:
        one, other = [await create_device(store, user, name="same") for _ in range(2)]
        assert one.id != other.id

    async def test_many_are_created_in_the_order_given(self, store: Registry, user: User) -> None:
        new = [
            (NewDevice(user.id, f"d{at}", labels={"n": str(at)}), new_key()) for at in range(300)
        ]
        created = await store.create_devices(new, NOW)
        assert [device.name for device in created] == [each.name for each, _ in new]
        assert [device.key and device.key.prefix for device in created] == [
            key.prefix for _, key in new
        ]
        record = await store.key_record(new[123][1].digest, NOW)
        assert record is not None
        assert (record.device_id, record.name) == (created[123].id, "d123")

    async def test_many_are_created_or_none(self, store: Registry, user: User) -> None:
        taken = new_key()
        await create_device(store, user, taken, name="first")
        new = [(NewDevice(user.id, "x"), new_key()), (NewDevice(user.id, "y"), taken)]
        with pytest.raises(Exception, match=r"(?i)unique"):
            await store.create_devices(new, NOW)
        assert [d.name for d in (await store.devices(DeviceQuery(10, user.id)))[0]] == ["first"]


class TestDeviceQueries:
    @pytest.fixture
    async def fleet(self, registry: RegistryHarness, user: User) -> dict[str, Device]:
        """Devices by name."""
        store = registry.store
        made = [
            await create_device(store, user, name="Boiler 1", device_type="boiler",
                                labels={"site": "north", "floor": "1"}),
            await create_device(store, user, name="boiler 2", device_type="boiler",
                                labels={"site": "south", "floor": "1"}),
            await create_device(store, user, name="pump_1", device_type="pump",
                                labels={"site": "north"}, location="Halle 100%"),
            await create_device(store, user, name="meter", description="next to the BOILER"),
        ]  # fmt: skip
        await registry.deactivate(device_id=made[1].id)
        return {device.name: device for device in made}

    CASES: tuple[tuple[dict[str, Any], list[str]], ...] = (
        ({}, ["Boiler 1", "boiler 2", "pump_1", "meter"]),
        ({"status": DeviceStatus.ACTIVE}, ["Boiler 1", "pump_1", "meter"]),
        ({"status": DeviceStatus.INACTIVE}, ["boiler 2"]),
        ({"status": DeviceStatus.MAINTENANCE}, []),
        ({"device_type": "boiler"}, ["Boiler 1", "boiler 2"]),
        ({"device_type": "BOILER"}, []),
        ({"labels": (("site", "north"),)}, ["Boiler 1", "pump_1"]),
        ({"labels": (("site", "north"), ("floor", "1"))}, ["Boiler 1"]),
        ({"labels": (("site", "north"), ("site", "south"))}, []),
        ({"labels": (("floor", "2"),)}, []),
        ({"labels": (("nothing", ""),)}, []),
        ({"labels": (("a\"b'c.d[0]$", "x"),)}, []),
        ({"text": "boiler"}, ["Boiler 1", "boiler 2", "meter"]),
        ({"text": "HALLE"}, ["pump_1"]),
        ({"text": "100%"}, ["pump_1"]),
        ({"text": "%"}, ["pump_1"]),
        ({"text": "p_1"}, ["pump_1"]),
        ({"text": "r_1"}, []),
        ({"text": "\\"}, []),
        ({"text": "boiler", "device_type": "boiler", "labels": (("floor", "1"),),
          "status": DeviceStatus.ACTIVE}, ["Boiler 1"]),
    )  # fmt: skip

    @pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case[0])[:40])
    async def test_filters(
        self,
        store: Registry,
        user: User,
        fleet: dict[str, Device],
        case: tuple[dict[str, Any], list[str]],
    ) -> None:
        filters, expected = case
        found, more = await store.devices(DeviceQuery(10, user.id, **filters))
        assert [device.name for device in found] == expected
        assert not more
        assert found == [await store.device(fleet[name].id) for name in expected]

    async def test_labels_with_any_name(self, store: Registry, user: User) -> None:
        for name in ("a.b", "a/b", "a-b", "A_b", "a..b", "a b", "a'b", "0", "$"):
            device = await create_device(store, user, labels={name: "Köln 'x'", "other": "no"})
            found, _ = await store.devices(DeviceQuery(10, user.id, labels=((name, "Köln 'x'"),)))
            assert [each.id for each in found] == [device.id]

    async def test_everyones_are_found_without_a_user(self, store: Registry) -> None:
        mark = token_hex(8)
        users = [await create_user(store) for _ in range(3)]
        made = [await create_device(store, each, labels={"mark": mark}) for each in users]
        found, _ = await store.devices(DeviceQuery(10, labels=(("mark", mark),)))
        assert found == made

    @pytest.mark.parametrize("limit", [1, 2, 3, 6, 7])
    async def test_pages_follow_the_ids(self, store: Registry, user: User, limit: int) -> None:
        made = [await create_device(store, user, name=f"d{at}") for at in range(6)]
        found: list[Device] = []
        more = True
        while more:
            after_id = found[-1].id if found else 0
            page, more = await store.devices(DeviceQuery(limit, user.id, after_id=after_id))
            assert len(page) == limit or not more
            found += page
        assert found == made

    async def test_filters_hold_on_every_page(self, store: Registry, user: User) -> None:
        made = [await create_device(store, user, device_type=("a", "b")[at % 2]) for at in range(6)]
        page, more = await store.devices(
            DeviceQuery(2, user.id, device_type="a", after_id=made[0].id)
        )
        assert (page, more) == ([made[2], made[4]], False)

    async def test_names_by_id_are_bounded(self, store: Registry, user: User) -> None:
        made = [await create_device(store, user, name=f"d{at}") for at in range(4)]
        await create_device(store, await create_user(store), name="of another")
        assert await store.device_names(user.id, 10) == {d.id: d.name for d in made}
        assert await store.device_names(user.id, 3) == {d.id: d.name for d in made[:3]}

    async def test_a_device_shows_its_newest_live_key(
        self, store: Registry, device: Device
    ) -> None:
        new, _ = await store.rotate_key(device.id, new_key(), NOW + DAY, NOW)
        found = await store.device(device.id)
        assert found is not None
        assert found.key == new
        await store.revoke_key(device.id, new.id, NOW)
        found = await store.device(device.id)
        assert found is not None
        assert found.key is not None
        assert device.key is not None
        assert found.key.id == device.key.id
        await store.revoke_key(device.id, device.key.id, NOW)
        found = await store.device(device.id)
        assert found is not None
        assert found.key is None


class TestKeys:
    async def test_a_live_key_opens_its_device(self, store: Registry, user: User) -> None:
        key = new_key(NOW + DAY)
        device = await create_device(store, user, key)
        assert device.key is not None
        assert await store.key_record(key.digest, NOW) == KeyRecord(
            key_id=device.key.id,
            device_id=device.id,
            user_id=user.id,
            name="boiler",
            status=DeviceStatus.ACTIVE,
            active=True,
            expires_ms=to_ms(NOW + DAY),
            created_ms=to_ms(NOW),
            prefix=key.prefix,
        )
        assert await store.keys(device.id, NOW) == [device.key]

    async def test_one_without_an_expiry_lives_on(self, store: Registry, user: User) -> None:
        key = new_key()
        await create_device(store, user, key)
        record = await store.key_record(key.digest, NOW + 10_000 * DAY)
        assert record is not None
        assert record.expires_ms is None

    async def test_unknown_ones_open_nothing(self, store: Registry, device: Device) -> None:
        assert await store.key_record(token_hex(32), NOW) is None
        assert await store.key_record("", NOW) is None
        assert await store.keys(NO_ID, NOW) == []
        assert await store.revoke_key(device.id, NO_ID, NOW) is None

    async def test_an_expired_one_opens_nothing(self, store: Registry, user: User) -> None:
        key = new_key(NOW + HOUR)
        device = await create_device(store, user, key)
        assert await store.key_record(key.digest, NOW + HOUR - SECOND) is not None
        for later in (NOW + HOUR, NOW + DAY):
            assert await store.key_record(key.digest, later) is None
            assert await store.keys(device.id, later) == []

    async def test_of_an_inactive_device_or_user_it_says_so(
        self, registry: RegistryHarness, user: User
    ) -> None:
        store, keys = registry.store, [new_key(), new_key()]
        one, _ = [await create_device(store, user, key) for key in keys]
        await registry.deactivate(device_id=one.id)
        records = [await store.key_record(key.digest, NOW) for key in keys]
        assert [record and (record.status, record.active) for record in records] == [
            (DeviceStatus.INACTIVE, False),
            (DeviceStatus.ACTIVE, True),
        ]
        await registry.deactivate(user_id=user.id)
        records = [await store.key_record(key.digest, NOW) for key in keys]
        assert [record and record.active for record in records] == [False, False]

    async def test_a_revoked_one_opens_nothing(self, store: Registry, user: User) -> None:
        key = new_key()
        device = await create_device(store, user, key)
        assert device.key is not None
        assert await store.revoke_key(device.id, device.key.id, NOW) == key.digest
        assert await store.key_record(key.digest, NOW) is None
        assert await store.keys(device.id, NOW) == []
        assert await store.revoke_key(device.id, device.key.id, NOW) is None

    async def test_only_the_devices_own_key_is_revoked(self, store: Registry, user: User) -> None:
        key = new_key()
        device, other = await create_device(store, user, key), await create_device(store, user)
        assert device.key is not None
        assert await store.revoke_key(other.id, device.key.id, NOW) is None
        assert await store.key_record(key.digest, NOW) is not None

    async def test_of_many_revocations_one_has_done_it(
        self, store: Registry, device: Device
    ) -> None:
        assert device.key is not None
        revocations = [store.revoke_key(device.id, device.key.id, NOW) for _ in range(8)]
        answers, _ = await outcomes(*revocations)
        assert [answer is not None for answer in answers].count(True) == 1


class TestKeyRotation:
    async def test_two_live_for_the_overlap(self, store: Registry, user: User) -> None:
        old, new = new_key(), new_key()
        device = await create_device(store, user, old)
        created, others = await store.rotate_key(device.id, new, NOW + HOUR, NOW + MINUTE)
        assert others == [old.digest]
        assert (created.device_id, created.prefix) == (device.id, new.prefix)
        assert (created.created_at, created.expires_at) == (NOW + MINUTE, None)
        live = await store.keys(device.id, NOW + MINUTE)
        assert [(key.prefix, key.expires_at) for key in live] == [
            (old.prefix, NOW + HOUR),
            (new.prefix, None),
        ]
        assert await store.key_record(old.digest, NOW + MINUTE) is not None
        assert await store.key_record(old.digest, NOW + HOUR) is None
        assert await store.key_record(new.digest, NOW + HOUR) is not None

    async def test_without_an_overlap_the_old_one_ends_at_once(
        self, store: Registry, user: User
    ) -> None:
        old, new = new_key(), new_key()
        device = await create_device(store, user, old)
        assert (await store.rotate_key(device.id, new, NOW, NOW))[1] == [old.digest]
        assert await store.key_record(old.digest, NOW) is None
        assert await store.key_record(new.digest, NOW) is not None

    async def test_a_key_that_ends_sooner_is_not_prolonged(
        self, store: Registry, user: User
    ) -> None:
        old = new_key(NOW + MINUTE)
        device = await create_device(store, user, old)
        await store.rotate_key(device.id, new_key(), NOW + HOUR, NOW)
        assert await store.key_record(old.digest, NOW + MINUTE) is None

    async def test_a_third_is_refused(self, store: Registry, device: Device) -> None:
        await store.rotate_key(device.id, new_key(), NOW + HOUR, NOW)
        before = await store.keys(device.id, NOW)
        with pytest.raises(ConflictError) as raised:
            await store.rotate_key(device.id, new_key(), NOW + HOUR, NOW)
        assert raised.value.error_code == "too_many_keys"
        assert await store.keys(device.id, NOW) == before

    async def test_ending_both_makes_room(self, store: Registry, device: Device) -> None:
        await store.rotate_key(device.id, new_key(), NOW + HOUR, NOW)
        created, others = await store.rotate_key(device.id, new_key(), NOW, NOW)
        assert len(others) == 2
        assert await store.keys(device.id, NOW) == [created]

    @pytest.mark.parametrize("way", ["expiry", "revocation"])
    async def test_one_that_ended_makes_room(
        self, store: Registry, device: Device, way: str
    ) -> None:
        await store.rotate_key(device.id, new_key(), NOW + HOUR, NOW)
        now = NOW + HOUR if way == "expiry" else NOW
        if way == "revocation":
            assert device.key is not None
            await store.revoke_key(device.id, device.key.id, NOW)
        _, others = await store.rotate_key(device.id, new_key(), now + HOUR, now)
        assert len(others) == 1
        assert len(await store.keys(device.id, now)) == 2

    async def test_two_at_most_however_many_rotate_at_once(
        self, store: Registry, device: Device
    ) -> None:
        created, conflicts = await outcomes(
            *(store.rotate_key(device.id, new_key(), NOW + HOUR, NOW) for _ in range(12))
        )
        assert len(created) == 1
        assert {conflict.error_code for conflict in conflicts} == {"too_many_keys"}
        assert len(await store.keys(device.id, NOW)) == 2

    async def test_one_lives_however_many_rotate_at_once_without_overlap(
        self, store: Registry, device: Device
    ) -> None:
        created, conflicts = await outcomes(
            *(store.rotate_key(device.id, new_key(), NOW, NOW) for _ in range(8))
        )
        assert (len(created), conflicts) == (8, [])
        assert len(await store.keys(device.id, NOW)) == 1


class TestNoteSeen:
    @staticmethod
    async def stamps(store: Registry, device: Device) -> tuple[int | None, int | None]:
        """When key and device were last seen."""
        assert device.key is not None
        found = await store.device(device.id)
        assert found is not None
        used_ms = await TestNoteSeen.used_ms(store, device.id)
        return used_ms[device.key.id], found.last_seen and to_ms(found.last_seen)

    @staticmethod
    async def used_ms(store: Registry, device_id: int) -> dict[int, int | None]:
        """When each key was last used."""
        keys = await store.keys(device_id, NOW)
        return {key.id: key.last_used_at and to_ms(key.last_used_at) for key in keys}

    async def test_key_and_device_are_stamped_to_the_millisecond(
        self, store: Registry, device: Device
    ) -> None:
        assert device.key is not None
        assert await self.stamps(store, device) == (None, None)
        await store.note_seen({device.key.id: 1_767_225_600_123})
        assert await self.stamps(store, device) == (1_767_225_600_123,) * 2

    async def test_never_backwards(self, store: Registry, device: Device) -> None:
        assert device.key is not None
        for seen_ms in (1_767_225_600_000, 1_767_225_599_999, 1_000, 1_767_225_600_000):
            await store.note_seen({device.key.id: seen_ms})
            assert await self.stamps(store, device) == (1_767_225_600_000,) * 2
        await store.note_seen({device.key.id: 1_767_225_600_001})
        assert await self.stamps(store, device) == (1_767_225_600_001,) * 2

    async def test_a_device_was_seen_when_its_newest_stamp_says(
        self, store: Registry, device: Device
    ) -> None:
        assert device.key is not None
        other, _ = await store.rotate_key(device.id, new_key(), NOW + HOUR, NOW)
        await store.note_seen({device.key.id: 5_000, other.id: 4_000})
        assert await self.stamps(store, device) == (5_000, 5_000)
        assert await self.used_ms(store, device.id) == {device.key.id: 5_000, other.id: 4_000}

    async def test_unknown_keys_and_nothing_at_all(self, store: Registry, device: Device) -> None:
        assert device.key is not None
        await store.note_seen({})
        await store.note_seen({NO_ID: 1, device.key.id: 7_000})
        assert await self.stamps(store, device) == (7_000, 7_000)

    async def test_thousands_in_one_call(self, store: Registry, user: User) -> None:
        new = [(NewDevice(user.id, "x"), new_key()) for _ in range(3_000)]
        devices = await store.create_devices(new, NOW)
        seen = {d.key.id: 10_000 + at for at, d in enumerate(devices) if d.key is not None}
        await store.note_seen(seen)
        found, _ = await store.devices(DeviceQuery(5_000, user.id))
        assert [d.last_seen and to_ms(d.last_seen) for d in found] == list(seen.values())

    async def test_many_flushes_at_once(self, store: Registry, user: User) -> None:
        new = [(NewDevice(user.id, "x"), new_key()) for _ in range(200)]
        devices = await store.create_devices(new, NOW)
        ids = [d.key.id for d in devices if d.key is not None]
        turns = [dict.fromkeys(reversed(ids), 10000 + turn) for turn in range(8)]
        await asyncio.gather(*(store.note_seen(turn) for turn in turns))
        found, _ = await store.devices(DeviceQuery(1_000, user.id))
        assert {d.last_seen and to_ms(d.last_seen) for d in found} == {10_007}


class TestSlots:
    @pytest.fixture
    async def slots(self, registry: RegistryHarness) -> Registry:
        """A registry without leases."""
        await registry.free_slots()
        return registry.store

    @staticmethod
    async def claim(slots: Registry, owner: str, limit: int = 8, **more: Any) -> int | None:
        """The number that an owner got."""
        now = more.pop("now", NOW)
        held = await slots.claim_slot(owner, limit, 4, now, more.pop("dead", {}), **more)
        return None if held is None else next(s.number for s in held if s.owner == owner)

    async def test_each_gets_the_lowest_of_its_own_until_there_are_none(
        self, slots: Registry
    ) -> None:
        assert [await self.claim(slots, f"o{at}", 3) for at in range(4)] == [0, 1, 2, None]

    async def test_all_at_once_all_get_one(self, slots: Registry) -> None:
        claimed = await asyncio.gather(*(self.claim(slots, f"o{at}", 12) for at in range(12)))
        assert sorted(claimed, key=str) == sorted(range(12), key=str)

    async def test_there_are_as_many_lanes_as_the_slots_need(self, slots: Registry) -> None:
        held = [await slots.claim_slot(f"o{at}", 64, 4, NOW, {}) for at in range(9)]
        assert all(each is not None for each in held)
        lanes = [next(s.lanes for s in h or () if s.owner == f"o{at}") for at, h in enumerate(held)]
        assert lanes == [4, 4, 4, 4, 8, 8, 8, 8, 16]
        renewed = await slots.renew_slot("o1", 4, NOW + SECOND, {})
        assert renewed is not None
        assert {s.owner: s.lanes for s in renewed}["o1"] == 16
        assert {s.owner: s.lanes for s in renewed}["o2"] == 4, "everyone renews for themselves"
        assert {s.owner: s.renewed_at for s in renewed}["o1"] == NOW + SECOND

    async def test_a_dead_holder_is_forgotten_unless_it_has_renewed(self, slots: Registry) -> None:
        for owner in ("a", "b", "c"):
            await self.claim(slots, owner)
        await slots.renew_slot("b", 4, NOW + SECOND, {})
        held = await slots.renew_slot("c", 4, NOW + MINUTE, {"a": NOW, "b": NOW})
        assert held is not None
        assert sorted(s.owner for s in held) == ["b", "c"]
        assert await slots.renew_slot("a", 4, NOW + MINUTE, {}) is None
        assert await self.claim(slots, "d", now=NOW + MINUTE) == 0

    async def test_one_that_died_just_now_is_not_the_next_ones(self, slots: Registry) -> None:
        await self.claim(slots, "a", 2)
        assert await self.claim(slots, "b", 2, dead={"a": NOW}) == 1
        assert await self.claim(slots, "c", 2, alone=True) == 0
        assert await self.claim(slots, "d", 1, alone=True) == 0, "rather that one than none"

    async def test_a_released_one_is_free_two_seconds_later(self, slots: Registry) -> None:
        await self.claim(slots, "a", 1)
        await slots.release_slot("a", NOW + SECOND)
        assert await slots.renew_slot("a", 4, NOW + SECOND, {}) is None
        assert await self.claim(slots, "b", 1, now=NOW + 2 * SECOND) is None
        assert await self.claim(slots, "c", 1, now=NOW + 3 * SECOND) == 0

    async def test_lanes_become_fewer_when_they_are_not_needed(self, slots: Registry) -> None:
        for at in range(5):
            await self.claim(slots, f"o{at}")
        await slots.release_slot("o4", NOW)
        soon = await slots.renew_slot("o0", 4, NOW + SECOND, {})
        later = await slots.renew_slot("o0", 4, NOW + MINUTE, {})
        assert soon is not None
        assert later is not None
        assert next(s.lanes for s in soon if s.owner == "o0") == 8, "what it issued may lie ahead"
        assert next(s.lanes for s in later if s.owner == "o0") == 4


class TestCacheEpoch:
    async def test_it_rises_by_one_whoever_raises_it(self, registry: RegistryHarness) -> None:
        store = registry.store
        before = await store.cache_epoch()
        raised = await asyncio.gather(*(store.raise_cache_epoch() for _ in range(5)))
        assert sorted(raised) == [before + n for n in range(1, 6)]
        assert await store.cache_epoch() == before + 5


class TestChangingDevices:
    async def test_fields_change_and_the_version_rises(
        self, store: Registry, device: Device
    ) -> None:
        changes = {"name": "new", "labels": {"a": "b"}, "status": "maintenance", "location": None}
        for later in (NOW + SECOND, NOW - DAY):
            before = await store.device(device.id)
            assert before is not None
            updated = await store.update_device(device.id, changes, None, later)
            assert updated is not None
            assert updated[0] == await store.device(device.id)
            assert updated[0].updated_at > before.updated_at
            assert (updated[0].name, updated[0].labels) == ("new", {"a": "b"})
            assert updated[0].status is DeviceStatus.MAINTENANCE
            assert updated[0].created_at == device.created_at

    async def test_the_digests_are_those_of_its_live_keys(
        self, store: Registry, user: User
    ) -> None:
        key = new_key()
        device = await create_device(store, user, key)
        updated = await store.update_device(device.id, {"status": "inactive"}, None, NOW)
        assert updated is not None
        assert updated[1] == [key.digest]
        record = await store.key_record(key.digest, NOW)
        assert record is not None
        assert not record.active

    async def test_a_stale_version_changes_nothing(self, store: Registry, device: Device) -> None:
        assert await store.update_device(device.id, {"name": "a"}, device.updated_at, NOW)
        with pytest.raises(StaleVersionError):
            await store.update_device(device.id, {"name": "b"}, device.updated_at, NOW)
        with pytest.raises(StaleVersionError):
            await store.delete_device(device.id, 1, device.updated_at, NOW)
        found = await store.device(device.id)
        assert found is not None
        assert found.name == "a"
        assert await store.update_device(NO_ID, {"name": "b"}, None, NOW) is None

    async def test_of_changes_at_once_from_one_version_one_wins(
        self, store: Registry, device: Device
    ) -> None:
        calls = [
            store.update_device(device.id, {"name": f"n{n}"}, device.updated_at, NOW)
            for n in range(6)
        ]
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(each, StaleVersionError) for each in done) == 5


class TestGroups:
    @pytest.fixture
    async def group(self, store: Registry, user: User) -> Group:
        return await store.create_group(NewGroup(user.id, "hall", "all", "#fff"), NOW)

    async def test_a_group_comes_back_whole(
        self, store: Registry, user: User, group: Group
    ) -> None:
        assert group == Group(group.id, user.id, "hall", "all", "#fff", 0, NOW, NOW)
        assert await store.group(group.id) == group
        later = NOW + HOUR
        changed = await store.update_group(group.id, "new", None, None, later)
        assert changed == Group(group.id, user.id, "new", None, None, 0, NOW, later)
        assert await store.delete_group(group.id)
        assert not await store.delete_group(group.id)
        assert await store.group(group.id) is None
        assert await store.update_group(group.id, "x", None, None, NOW) is None

    async def test_a_group_needs_its_user(self, store: Registry) -> None:
        with pytest.raises(NotFoundError):
            await store.create_group(NewGroup(NO_ID, "x"), NOW)

    async def test_devices_of_its_user_alone_are_added(
        self, store: Registry, user: User, group: Group
    ) -> None:
        mine = [await create_device(store, user) for _ in range(3)]
        theirs = await create_device(store, await create_user(store))
        first = await store.add_to_group(group.id, [mine[0].id], NOW)
        assert first == {mine[0].id: Membership.ADDED}
        ids = [*(device.id for device in mine), theirs.id, NO_ID]
        added = await store.add_to_group(group.id, ids, NOW)
        results = [added[each] for each in ids]
        expected = ["already", "added", "added", "not_found", "not_found"]
        assert [result.value for result in results] == expected
        found = await store.group(group.id)
        assert found is not None
        assert found.device_count == 3
        page, more = await store.devices(DeviceQuery(2, group_id=group.id))
        assert ([device.id for device in page], more) == (ids[:2], True)
        assert await store.remove_from_group(group.id, ids[0])
        assert not await store.remove_from_group(group.id, ids[0])
        with pytest.raises(NotFoundError):
            await store.add_to_group(NO_ID, ids, NOW)

    async def test_two_that_add_the_same_add_it_once(
        self, store: Registry, user: User, group: Group
    ) -> None:
        ids = [(await create_device(store, user)).id for _ in range(5)]
        results = await asyncio.gather(
            *(store.add_to_group(group.id, order, NOW) for order in (ids, ids[::-1], ids))
        )
        for device_id in ids:
            assert sorted(result[device_id].value for result in results) == [
                "added",
                "already",
                "already",
            ]

    async def test_pages_by_user_and_by_device(
        self, store: Registry, user: User, device: Device
    ) -> None:
        groups = [await store.create_group(NewGroup(user.id, f"g{n}"), NOW) for n in range(3)]
        page, more = await store.groups(GroupQuery(2, user_id=user.id))
        assert ([group.id for group in page], more) == ([groups[0].id, groups[1].id], True)
        rest, more = await store.groups(GroupQuery(2, user_id=user.id, after_id=page[-1].id))
        assert ([group.id for group in rest], more) == ([groups[2].id], False)
        await store.add_to_group(groups[1].id, [device.id], NOW)
        holding, _ = await store.groups(GroupQuery(5, device_id=device.id))
        assert [(group.id, group.device_count) for group in holding] == [(groups[1].id, 1)]


class TestConfigs:
    async def test_desired_and_reported(self, store: Registry, device: Device) -> None:
        assert await store.device_config(device.id) == DeviceConfig(0, "{}", None)
        first = await store.put_device_config(device.id, '{"a": 1}', None)
        assert first == DeviceConfig(1, '{"a": 1}', None)
        reported = await store.report_device_config(device.id, 1, '{"a":1}', NOW)
        assert reported == DeviceConfig(1, '{"a": 1}', ReportedConfig(1, '{"a":1}', NOW))
        second = await store.put_device_config(device.id, "{}", [1, 7])
        assert second == DeviceConfig(2, "{}", reported.reported)
        assert await store.device_config(device.id) == second

    async def test_a_stale_version_and_a_missing_device(
        self, store: Registry, device: Device
    ) -> None:
        with pytest.raises(StaleVersionError):
            await store.put_device_config(device.id, "{}", [1])
        with pytest.raises(StaleVersionError):
            await store.put_device_config(device.id, "{}", [])
        assert (await store.put_device_config(device.id, "{}", [0])).version == 1
        with pytest.raises(NotFoundError):
            await store.put_device_config(NO_ID, "{}", None)
        with pytest.raises(NotFoundError):
            await store.report_device_config(NO_ID, 1, "{}", NOW)

    async def test_versions_never_collide(self, store: Registry, device: Device) -> None:
        done = await asyncio.gather(
            *(store.put_device_config(device.id, "{}", None) for _ in range(6))
        )
        assert sorted(each.version for each in done) == [1, 2, 3, 4, 5, 6]


async def forget_all(store: Registry, finished_before: datetime) -> None:
    """On a shared server those of earlier runs, too."""
    while await store.forget_jobs(finished_before):
        pass


async def end(store: Registry, job: Job, at: datetime) -> None:
    """Claim and end a job; on a shared server others may come first."""
    while True:
        claimed = await store.claim_job("me", at, at + HOUR)
        assert claimed is not None
        if claimed.id == job.id:
            break
    assert await store.save_job(replace(job, due_at=None, finished_at=at), "me", None)


class TestDeletions:
    # Before all others of a shared server, so that a claim finds the job of the test first.
    @pytest.fixture
    def at(self) -> datetime:
        return NOW - DAY * next(_days)

    async def test_a_device_goes_and_leaves_a_job(
        self, store: Registry, user: User, at: datetime
    ) -> None:
        key, successor = new_key(), new_key()
        device = await create_device(store, user, key)
        await store.rotate_key(device.id, successor, NOW + DAY, NOW)
        group = await store.create_group(NewGroup(user.id, "g"), NOW)
        await store.add_to_group(group.id, [device.id], NOW)
        await store.put_device_config(device.id, "{}", None)
        job = await store.delete_device(device.id, user.id, None, at)
        assert job is not None
        assert (job.kind, job.subject_id) == (JobKind.DEVICE_DELETION, device.id)
        assert (job.status, job.due_at, job.finished_at) == (JobStatus.PENDING, at, None)
        counts = {"devices": 1, "keys": 2, "configs": 1, "memberships": 1}
        assert job.counts == counts | {"points": 0, "events": 0}
        assert await store.job(job.id) == job
        assert await store.job_devices(job.id, 0, 10) == [device.id]
        assert await store.job_devices(job.id, device.id, 10) == []
        digests = sorted([key.digest, successor.digest])
        assert await store.job_keys(job.id, "", 10) == digests
        assert await store.job_keys(job.id, digests[0], 10) == digests[1:]
        assert await store.device(device.id) is None
        assert await store.key_record(key.digest, NOW) is None
        assert (await store.device_config(device.id)).version == 0
        assert (await store.group(group.id) or group).device_count == 0
        assert await store.delete_device(device.id, user.id, None, at) is None
        assert (await create_device(store, user)).id > device.id

    async def test_a_user_goes_with_all_devices(self, store: Registry, at: datetime) -> None:
        user = await create_user(store)
        devices = [await create_device(store, user) for _ in range(3)]
        group = await store.create_group(NewGroup(user.id, "g"), NOW)
        job = await store.delete_user(user.id, 7, at)
        assert job is not None
        assert (job.kind, job.subject_id, job.requested_by) == (JobKind.USER_DELETION, user.id, 7)
        assert (job.counts["devices"], job.counts["keys"], job.counts["groups"]) == (3, 3, 1)
        assert await store.job_devices(job.id, 0, 2) == [device.id for device in devices[:2]]
        assert await store.user(user.id) is None
        assert await store.group(group.id) is None
        assert await store.delete_user(user.id, 7, at) is None

    async def test_no_device_slips_through_a_deletion(self, store: Registry, at: datetime) -> None:
        """Every device that was registered meanwhile is in the job, or was refused."""
        user = await create_user(store)
        made, job = await asyncio.gather(
            asyncio.gather(*(create_device(store, user) for _ in range(8)), return_exceptions=True),
            store.delete_user(user.id, 1, at),
        )
        assert job is not None
        listed = await store.job_devices(job.id, 0, 100)
        ids = [each.id for each in made if isinstance(each, Device)]
        assert sorted(ids) == listed
        refused = [each for each in made if not isinstance(each, Device)]
        assert all(isinstance(each, NotFoundError) for each in refused)

    async def test_one_at_a_time_has_the_lease(
        self, store: Registry, device: Device, at: datetime
    ) -> None:
        job = await store.delete_device(device.id, 1, None, at)
        assert job is not None
        assert await store.claim_job("early", at - SECOND, at) is None
        claims = await asyncio.gather(
            *(store.claim_job(f"{job.id}-{n}", at, at + MINUTE) for n in range(4))
        )
        winners = [n for n, each in enumerate(claims) if each is not None and each.id == job.id]
        assert len(winners) == 1
        owner = f"{job.id}-{winners[0]}"
        further = replace(job, counts={"points": None}, after_device_id=5, attempts=2)
        assert not await store.save_job(further, "another", None)
        assert await store.job(job.id) == job
        assert await store.save_job(further, owner, at + MINUTE)
        assert await store.job(job.id) == further
        assert await store.claim_job("late", at + SECOND, at + HOUR) is None
        taken = await store.claim_job("late", at + MINUTE, at + HOUR)
        assert taken == further
        assert not await store.save_job(further, owner, None), "it has lost its lease"
        finished = replace(further, status=JobStatus.DONE, due_at=None, finished_at=at)
        assert await store.save_job(finished, "late", None)
        assert await store.claim_job("last", at + MINUTE, at + HOUR) is None

    async def test_what_is_over_is_forgotten(
        self, store: Registry, device: Device, at: datetime
    ) -> None:
        job = await store.delete_device(device.id, 1, None, at)
        assert job is not None
        await end(store, job, at)
        await forget_all(store, at)
        assert await store.job_devices(job.id, 0, 1) == [device.id]
        assert len(await store.job_keys(job.id, "", 1)) == 1
        assert not await store.forget_jobs(at + SECOND)
        assert await store.job_devices(job.id, 0, 1) == []
        assert await store.job_keys(job.id, "", 1) == []
        assert await store.job(job.id) is None

    async def test_some_are_forgotten_at_a_time_until_none_is_left(
        self, store: Registry, at: datetime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("iotflow.stores.registry.sql_jobs._FORGET_AT_ONCE", 10)
        await forget_all(store, at + SECOND)
        ids: list[int] = []
        for _ in range(15):
            job = await store.add_job(NewJob(JobKind.CACHE_WARMING, 1, 0, {}), at)
            await end(store, job, at)
            ids.append(job.id)
        assert await store.forget_jobs(at + SECOND)
        assert [job_id for job_id in ids if await store.job(job_id) is not None] == ids[10:]
        assert not await store.forget_jobs(at + SECOND)
        assert [job_id for job_id in ids if await store.job(job_id) is not None] == []

    async def test_a_long_list_is_forgotten_in_parts(
        self, store: Registry, at: datetime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("iotflow.stores.registry.sql_jobs._ROWS_AT_ONCE", 10)
        await forget_all(store, at + SECOND)
        user = await create_user(store)
        new = [(NewDevice(user.id, f"d{number}"), new_key()) for number in range(11)]
        await store.create_devices(new, NOW)
        job = await store.delete_user(user.id, 1, at)
        assert job is not None
        await end(store, job, at)
        assert await store.forget_jobs(at + SECOND)
        assert len(await store.job_devices(job.id, 0, 20)) == 1
        assert len(await store.job_keys(job.id, "", 20)) == 11
        assert await store.job(job.id) is not None
        await forget_all(store, at + SECOND)
        assert await store.job(job.id) is None


class TestOtherJobs:
    @pytest.fixture
    def at(self) -> datetime:
        return NOW - DAY * next(_days)

    async def test_a_job_keeps_what_was_asked_and_what_was_found(
        self, store: Registry, at: datetime
    ) -> None:
        asked = {"from_us": 1_800_000_000_000_001, "device_ids": [1, 2]}
        new = NewJob(JobKind.VERIFICATION, NO_ID, 7, asked, at + SECOND)
        job = await store.add_job(new, at)
        assert (job.kind, job.status, job.subject_id) == (JobKind.VERIFICATION, "pending", 7)
        assert (job.parameters, job.state, job.report) == (asked, {}, {})
        kinds = [JobKind.VERIFICATION]
        assert await store.claim_job("me", at, at + MINUTE, kinds) is None
        later = at + SECOND
        assert await store.claim_job("me", later, at + MINUTE, [JobKind.CACHE_WARMING]) is None
        assert await store.claim_job("me", later, at + MINUTE, kinds) == job
        further = replace(job, stage=1, state={"after": 5}, report={"findings": [{"a": 1}]})
        assert await store.save_job(further, "me", None)
        assert await store.job(job.id) == further
        assert await store.save_job(further, "me", None) is False
        await finish(store, further, at)

    async def test_what_was_not_begun_can_be_amended(self, store: Registry, at: datetime) -> None:
        job = await store.add_job(NewJob(JobKind.EVENT_REPLAY, 0, 0, {"a": 1}), at)
        assert job.due_at == at
        assert await store.amend_job(job.id, {"a": 2}, at + SECOND, at)
        amended = replace(job, parameters={"a": 2}, due_at=at + SECOND)
        assert await store.job(job.id) == amended
        held = at + MINUTE
        claimed = await store.claim_job("me", at + SECOND, held, [JobKind.EVENT_REPLAY])
        assert claimed == amended
        assert not await store.amend_job(job.id, {"a": 3}, at, at + SECOND), "somebody has it"
        begun = replace(amended, stage=1)
        assert await store.save_job(begun, "me", None)
        assert not await store.amend_job(job.id, {"a": 3}, at, at + HOUR), "it was begun"
        assert not await store.amend_job(NO_ID, {}, at, at)
        await finish(store, begun, at)
        assert not await store.amend_job(job.id, {"a": 3}, at, at + HOUR), "it is over"

    async def test_jobs_are_listed_newest_first(self, store: Registry, at: datetime) -> None:
        by = NO_ID + next(_days)
        kinds = (JobKind.CACHE_WARMING, JobKind.VERIFICATION, JobKind.CACHE_WARMING)
        jobs = [await store.add_job(NewJob(kind, by, 0, {}), at) for kind in kinds]
        page, more = await store.jobs(JobQuery(2, by))
        assert (page, more) == ([jobs[2], jobs[1]], True)
        rest = await store.jobs(JobQuery(2, by, before_id=page[-1].id))
        assert rest == ([jobs[0]], False)
        warmings = await store.jobs(JobQuery(9, by, JobKind.CACHE_WARMING))
        assert warmings == ([jobs[2], jobs[0]], False)
        for job in jobs:
            await finish(store, job, at)

    async def test_what_is_known_of_devices(
        self, store: Registry, user: User, at: datetime
    ) -> None:
        keys = [new_key(), new_key()]
        kept, gone = [await create_device(store, user, key) for key in keys]
        both = [kept.id, gone.id]
        assert await store.known_devices([*both, NO_ID]) == set(both)
        assert await store.live_keys(both, NOW) == [key.digest for key in keys]
        assert await store.being_deleted(both) == set()
        job = await store.delete_device(gone.id, user.id, None, at)
        assert job is not None
        assert await store.known_devices(both) == {kept.id}
        assert await store.live_keys(both, NOW) == [keys[0].digest]
        assert await store.being_deleted(both) == {gone.id}
        await finish(store, job, at)
        assert await store.being_deleted(both) == set()


async def finish(store: Registry, job: Job, at: datetime) -> None:
    """Leave nothing on a shared server that a later claim would find."""
    while (claimed := await store.claim_job("end", at + HOUR, at + DAY, [job.kind])) is not None:
        over = replace(claimed, status=JobStatus.DONE, due_at=None, finished_at=at)
        assert await store.save_job(over, "end", None)
        if claimed.id == job.id:
            return
    raise AssertionError("the job cannot be claimed")


_days = itertools.count(1_000)


class TestAccounts:
    async def test_changes_keep_names_unique_whatever_their_case(
        self, store: Registry, user: User
    ) -> None:
        other = await create_user(store)
        for change in ({"username": other.username.upper()}, {"email": other.email.upper()}):
            with pytest.raises(ConflictError) as refused:
                await store.update_user(user.id, change, NOW)
            assert refused.value.error_code == f"{next(iter(change))}_taken"
        own = await store.update_user(user.id, {"username": user.username.upper()}, NOW + DAY)
        assert own is not None
        assert (own.username, own.updated_at) == (user.username.upper(), NOW + DAY)
        assert await store.credentials(user.username) is not None
        assert await store.update_user(NO_ID, {"username": "nobody-x"}, NOW) is None

    async def test_pages_are_filtered(self, store: Registry) -> None:
        mark = token_hex(6)
        made = [await create_user(store, f"{mark}-{n}") for n in range(3)]
        await store.set_user_active(made[1].id, False, NOW)
        page, more = await store.users(UserQuery(2, text=mark.upper()))
        assert ([u.id for u in page], more) == ([u.id for u in made[:2]], True)
        rest, more = await store.users(UserQuery(2, text=mark, after_id=page[-1].id))
        assert ([u.id for u in rest], more) == ([made[2].id], False)
        off, _ = await store.users(UserQuery(9, text=mark, is_active=False))
        assert [u.id for u in off] == [made[1].id]
        assert (await store.users(UserQuery(9, text=mark, role=UserRole.ADMIN)))[0] == []

    async def test_a_new_password_ends_all_but_the_kept_session(
        self, store: Registry, user: User
    ) -> None:
        kept, other = token_hex(16), token_hex(16)
        digests = {family: token_hex(32) for family in (kept, other)}
        for family, digest in digests.items():
            await store.add_refresh_token(
                NewRefreshToken(user.id, family, digest, NOW + DAY, 0), NOW
            )
        token = new_token(user.id)
        await store.add_personal_token(token, 9, NOW)
        changed = await store.set_password(user.id, "new hash", kept, NOW)
        assert changed is not None
        assert (changed.token_version, changed.kept_session) == (1, kept)
        assert await store.personal_token(token.digest, NOW) is None
        for family, digest in digests.items():
            rotated = await store.rotate_refresh_token(digest, token_hex(32), NOW + DAY, NOW)
            assert isinstance(rotated, Rotated) == (family == kept)
        # What was let in before comes too late.
        with pytest.raises(NotFoundError):
            await store.add_personal_token(token, 9, NOW)
        late = NewRefreshToken(user.id, token_hex(16), token_hex(32), NOW + DAY, 0)
        with pytest.raises(NotFoundError):
            await store.add_refresh_token(late, NOW)
        assert await store.set_password(NO_ID, "hash", None, NOW) is None

    async def test_no_rotation_survives_a_new_password_at_the_same_time(
        self, store: Registry, user: User
    ) -> None:
        digests = [token_hex(32) for _ in range(6)]
        for digest in digests:
            new = NewRefreshToken(user.id, token_hex(16), digest, NOW + DAY)
            await store.add_refresh_token(new, NOW)
        successors = [token_hex(32) for _ in digests]
        rotations = [
            store.rotate_refresh_token(digest, successor, NOW + DAY, NOW)
            for digest, successor in zip(digests, successors, strict=True)
        ]
        await asyncio.gather(
            *rotations[:3], store.set_password(user.id, "x", None, NOW), *rotations[3:]
        )
        for digest in digests + successors:
            assert await rotate(store, digest) is None

    async def test_switching_off_ends_tokens_and_tells_of_the_keys(
        self, store: Registry, user: User
    ) -> None:
        key, token = new_key(), new_token(user.id)
        await create_device(store, user, key)
        await store.add_personal_token(token, 9, NOW)
        off = await store.set_user_active(user.id, False, NOW)
        assert off is not None
        assert (off[0].is_active, off[0].token_version, off[1]) == (False, 1, [key.digest])
        assert await store.personal_token(token.digest, NOW) is None
        record = await store.key_record(key.digest, NOW)
        assert record is not None
        assert not record.active
        on = await store.set_user_active(user.id, True, NOW)
        assert on is not None
        assert (on[0].is_active, on[1]) == (True, [key.digest])
        assert await store.set_user_active(NO_ID, True, NOW) is None

    async def test_devices_and_groups_stay_within_a_limit_also_at_once(
        self, store: Registry, user: User
    ) -> None:
        made, refused = await outcomes(
            *(
                store.create_devices([(NewDevice(user.id, "x"), new_key())], NOW, 2)
                for _ in range(5)
            )
        )
        assert (len(made), {each.error_code for each in refused}) == (2, {"too_many_devices"})
        groups, refused = await outcomes(
            *(store.create_group(NewGroup(user.id, "x"), NOW, 1) for _ in range(4))
        )
        assert (len(groups), {each.error_code for each in refused}) == (1, {"too_many_groups"})

    async def test_counts_grow_with_what_is_there(self, store: Registry, user: User) -> None:
        before = await store.counts()
        await create_device(store, user)
        await store.set_user_active(user.id, False, NOW)
        after = await store.counts()
        assert after.devices[DeviceStatus.ACTIVE] > before.devices[DeviceStatus.ACTIVE]
        assert after.devices.keys() == set(DeviceStatus)
        assert after.users >= after.active_users


class TestPersonalTokens:
    async def test_a_token_opens_its_user_until_it_expires(
        self, store: Registry, user: User
    ) -> None:
        new = new_token(user.id, NOW + HOUR)
        made = await store.add_personal_token(new, 9, NOW)
        assert (made.scopes, made.expires_at) == (frozenset({Scope.READ}), NOW + HOUR)
        assert await store.personal_token(new.digest, NOW) == (made, user)
        await store.note_token_used(made.id, NOW + MINUTE)
        used = await store.personal_token(new.digest, NOW)
        assert used is not None
        assert used[0].last_used_at == NOW + MINUTE
        assert await store.personal_token(new.digest, NOW + HOUR) is None
        assert await store.personal_tokens(user.id, 0, 9, NOW + HOUR) == ([], False)

    async def test_only_its_user_deletes_a_token(self, store: Registry, user: User) -> None:
        new, other = new_token(user.id), await create_user(store)
        made = await store.add_personal_token(new, 9, NOW)
        assert await store.delete_personal_token(other.id, made.id) is None
        assert await store.delete_personal_token(user.id, made.id) == new.digest
        assert await store.delete_personal_token(user.id, made.id) is None
        assert await store.personal_token(new.digest, NOW) is None

    async def test_a_user_has_no_more_than_the_limit_and_expired_ones_do_not_count(
        self, store: Registry, user: User
    ) -> None:
        await store.add_personal_token(new_token(user.id, NOW + SECOND), 3, NOW)
        made, refused = await outcomes(
            *(store.add_personal_token(new_token(user.id), 3, NOW + HOUR) for _ in range(6))
        )
        assert (len(made), {each.error_code for each in refused}) == (3, {"too_many_tokens"})
        page, more = await store.personal_tokens(user.id, 0, 2, NOW + HOUR)
        assert (len(page), more) == (2, True)


class TestInvitations:
    async def test_one_is_used_once_also_at_once(self, store: Registry) -> None:
        digest, name = token_hex(32), token_hex(6)
        await store.add_invitation(NewInvitation(digest, None, NOW + DAY), NOW)

        async def register(number: int) -> bool:
            new = NewUser(f"{name}-{number}", f"{name}-{number}@example.com", "hash")
            try:
                await store.create_user(new, NOW, digest)
            except NotAllowedError:
                return False
            return True

        assert sorted(await asyncio.gather(*map(register, range(5)))) == [False] * 4 + [True]

    async def test_a_taken_name_uses_none_up_and_an_expired_one_opens_nothing(
        self, store: Registry, user: User
    ) -> None:
        digest, name = token_hex(32), token_hex(6)
        await store.add_invitation(NewInvitation(digest, user.id, NOW + DAY), NOW)
        with pytest.raises(ConflictError):
            await store.create_user(NewUser(user.username, f"{name}@x.org", "hash"), NOW, digest)
        new = NewUser(name, f"{name}@example.com", "hash")
        with pytest.raises(NotAllowedError) as refused:
            await store.create_user(new, NOW + DAY, digest)
        assert refused.value.error_code == "invalid_invitation"
        assert (await store.create_user(new, NOW, digest)).username == name
