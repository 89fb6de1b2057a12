"""Deletions: gone at once, complete soon, whatever happens meanwhile."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from iotflow.devices.authentication import KeyAuthenticator
from iotflow.domain.callers import UserCaller
from iotflow.domain.clock import Lane, WriteClock
from iotflow.domain.jobs import DELETIONS, Job, JobStatus
from iotflow.domain.times import TimeRange
from iotflow.domain.users import User, UserRole
from iotflow.jobs.deletions import DeletionWork
from iotflow.jobs.worker import JobWorker
from iotflow.observability.metrics import Metrics
from iotflow.runtime import Runtime
from iotflow.settings import JobSettings, RateLimitSettings, Settings
from iotflow.stores.cache.memory import MemoryCache
from iotflow.stores.cache.protocol import FixedEpoch
from iotflow.stores.cache.ttls import CacheTtls
from iotflow.stores.events.sql import SqlEventStore
from iotflow.stores.registry.protocol import NewDevice, NewKey, NewUser
from iotflow.stores.registry.sql import SqlRegistry
from iotflow.stores.telemetry.sqlite import SqliteTelemetryStore
from tests.api.conftest import Account, DeviceUnderTest, create_account, create_device, serving
from tests.stored import stored

API = "/api/v1"
SETTLE_S = 0.5


def settings(data_dir: Path, settle_s: float = SETTLE_S) -> Settings:
    return Settings.load(
        data_dir=data_dir,
        rate_limits=RateLimitSettings(enabled=False),
        jobs=JobSettings(settle_s=settle_s),
    )


@pytest.fixture
async def service(data_dir: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings(data_dir)) as client:
        yield client


def rows(data_dir: Path, role: str, statement: str, *values: Any) -> list[Any]:
    return stored(data_dir / f"{role}.db", statement, *values)


def leftovers(data_dir: Path, device_id: int) -> dict[str, int]:
    """What the files of the stores still hold of a device."""
    looked = {
        ("registry", "devices", "id"),
        ("registry", "api_keys", "device_id"),
        ("registry", "device_config", "device_id"),
        ("registry", "group_devices", "device_id"),
        ("telemetry", "points", "device_id"),
        ("telemetry", "latest", "device_id"),
        ("events", "events", "device_id"),
    }
    found = {
        f"{role}.{table}": rows(
            data_dir, role, f"SELECT count(*) FROM {table} WHERE {column} = ?", device_id
        )[0][0]
        for role, table, column in looked
    }
    return {name: number for name, number in found.items() if number}


async def furnish(client: httpx.AsyncClient, device: DeviceUnderTest, group_id: int) -> None:
    """Something of the device in every store and table."""
    for number in range(3):
        body = {"data": {"a": number, "b": "x"}}
        sent = await client.post(f"{API}/telemetry", json=body, headers=device.headers)
        assert sent.status_code == 201
    headers = device.owner.headers
    await client.put(f"{API}/devices/{device.id}/config", json={"a": 1}, headers=headers)
    member = {"device_id": device.id}
    await client.post(f"{API}/groups/{group_id}/devices", json=member, headers=headers)
    await client.get(f"{API}/telemetry/{device.id}/latest", headers=headers)


async def until_present(data_dir: Path, device_id: int) -> None:
    for _ in range(100):
        if len(leftovers(data_dir, device_id)) == 7:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(leftovers(data_dir, device_id))


async def until_done(client: httpx.AsyncClient, job_id: int, account: Account) -> dict[str, Any]:
    for _ in range(200):
        answer = await client.get(f"{API}/jobs/{job_id}", headers=account.headers)
        assert answer.status_code == 200, answer.text
        job: dict[str, Any] = answer.json()
        if job["status"] == "done":
            return job
        await asyncio.sleep(0.05)
    raise AssertionError(job)


async def begin(client: httpx.AsyncClient, device: DeviceUnderTest) -> int:
    answer = await client.delete(f"{API}/devices/{device.id}", headers=device.owner.headers)
    assert answer.status_code == 202, answer.text
    assert answer.json()["job"]["status"] == "pending"
    job_id: int = answer.json()["job"]["id"]
    return job_id


async def new_group(client: httpx.AsyncClient, owner: Account) -> int:
    made = await client.post(f"{API}/groups", json={"name": "g"}, headers=owner.headers)
    group_id: int = made.json()["id"]
    return group_id


async def test_a_deleted_device_is_gone_at_once_and_then_completely(
    service: httpx.AsyncClient, data_dir: Path
) -> None:
    owner = await create_account(service)
    group_id = await new_group(service, owner)
    device, other = [await create_device(service, owner) for _ in range(2)]
    for each in (device, other):
        await furnish(service, each, group_id)
        await until_present(data_dir, each.id)
    others = leftovers(data_dir, other.id)
    job_id = await begin(service, device)
    for method, path, headers in (
        ("GET", f"/devices/{device.id}", owner.headers),
        ("DELETE", f"/devices/{device.id}", owner.headers),
        ("GET", f"/devices/{device.id}/config", owner.headers),
        ("GET", f"/telemetry/{device.id}", owner.headers),
        ("GET", f"/telemetry/{device.id}/latest", owner.headers),
        ("DELETE", f"/groups/{group_id}/devices/{device.id}", owner.headers),
    ):
        answer = await service.request(method, f"{API}{path}", headers=headers)
        assert answer.status_code == 404, path
    for method, path in (("POST", "/telemetry"), ("GET", "/devices/status")):
        refused = await service.request(method, f"{API}{path}", headers=device.headers)
        assert refused.status_code == 401
    job = await until_done(service, job_id, owner)
    assert job["kind"] == "device_deletion"
    assert job["finished_at"] > job["created_at"]
    counts = {"devices": 1, "keys": 1, "configs": 1, "memberships": 1, "points": 6}
    assert {name: job["counts"][name] for name in counts} == counts
    assert job["counts"]["events"] >= 4
    assert leftovers(data_dir, device.id) == {}
    assert leftovers(data_dir, other.id).keys() == others.keys()
    assert leftovers(data_dir, other.id)["telemetry.points"] == 6
    listed = await service.get(f"{API}/devices", headers=owner.headers)
    assert [item["id"] for item in listed.json()["items"]] == [other.id]


async def test_a_deleted_id_never_comes_back(service: httpx.AsyncClient) -> None:
    owner = await create_account(service)
    device = await create_device(service, owner)
    await until_done(service, await begin(service, device), owner)
    assert (await create_device(service, owner)).id > device.id


async def test_the_deletion_itself_is_an_event_that_stays(
    service: httpx.AsyncClient, data_dir: Path
) -> None:
    owner = await create_account(service)
    device = await create_device(service, owner)
    await until_done(service, await begin(service, device), owner)
    statement = "SELECT details FROM events WHERE event_type = 'device.deleted' AND user_id = ?"
    for _ in range(60):
        if found := rows(data_dir, "events", statement, owner.id):
            break
        await asyncio.sleep(0.05)
    assert len(found) == 1
    assert f'"{device.id}"' in found[0][0]


async def test_a_submission_under_way_leaves_nothing_behind(
    service: httpx.AsyncClient, data_dir: Path
) -> None:
    owner = await create_account(service)
    device = await create_device(service, owner)

    async def submit() -> int:
        body = {"data": {"a": 1}}
        sent = await service.post(f"{API}/telemetry", json=body, headers=device.headers)
        return sent.status_code

    async def load() -> list[int]:
        statuses = [201]
        while statuses[-1] == 201:
            statuses.append(await submit())
            await asyncio.sleep(0.01)  # a quick machine would come up to the limit
        return statuses

    tasks = [asyncio.create_task(load()) for _ in range(8)]
    await asyncio.sleep(0.1)
    job_id = await begin(service, device)
    statuses = {status for each in await asyncio.gather(*tasks) for status in each}
    assert statuses == {201, 401}
    await until_done(service, job_id, owner)
    assert leftovers(data_dir, device.id) == {}


async def test_what_comes_late_is_removed_too(data_dir: Path) -> None:
    """A write that the first pass cannot have seen, straight into the file."""
    async with serving(settings(data_dir, settle_s=1.0)) as client:
        owner = await create_account(client)
        device = await create_device(client, owner)
        await furnish(client, device, await new_group(client, owner))
        await until_present(data_dir, device.id)
        job_id = await begin(client, device)
        for _ in range(100):
            if leftovers(data_dir, device.id) == {}:
                break
            await asyncio.sleep(0.02)
        assert leftovers(data_dir, device.id) == {}
        rows(data_dir, "telemetry", insert_late(columns(data_dir)), device.id)
        assert leftovers(data_dir, device.id) == {"telemetry.points": 1}
        await until_done(client, job_id, owner)
        assert leftovers(data_dir, device.id) == {}


def columns(data_dir: Path) -> list[str]:
    return [row[1] for row in rows(data_dir, "telemetry", "PRAGMA table_info(points)")]


def insert_late(names: list[str]) -> str:
    values = ["?" if name == "device_id" else "1" for name in names]
    return f"INSERT INTO points ({', '.join(names)}) VALUES ({', '.join(values)})"


async def test_a_job_goes_on_after_a_restart(data_dir: Path) -> None:
    async with serving(settings(data_dir, settle_s=30)) as client:
        owner = await create_account(client)
        device = await create_device(client, owner)
        await furnish(client, device, await new_group(client, owner))
        job_id = await begin(client, device)
    with closing(sqlite3.connect(data_dir / "registry.db")) as connection:
        assert connection.execute("SELECT status FROM jobs").fetchall() != [("done",)]
        # As a process that was killed in the first pass leaves it, when its lease has run out.
        connection.execute(
            "UPDATE jobs SET stage = 0, due_at = created_at, lease_owner = 'dead',"
            " lease_until = created_at"
        )
        connection.commit()
    async with serving(settings(data_dir)) as client:
        await until_done(client, job_id, owner)
        assert leftovers(data_dir, device.id) == {}
        refused = await client.get(f"{API}/devices/status", headers=device.headers)
        assert refused.status_code == 401


async def test_a_job_is_its_owners(service: httpx.AsyncClient) -> None:
    owner, stranger = [await create_account(service) for _ in range(2)]
    job_id = await begin(service, await create_device(service, owner))
    url = f"{API}/jobs/{job_id}"
    assert (await service.get(url, headers=stranger.headers)).status_code == 404
    assert (await service.get(f"{API}/jobs/99999", headers=owner.headers)).status_code == 404
    assert (await service.get(url)).status_code == 401
    assert (await service.get(f"{API}/jobs/0", headers=owner.headers)).status_code == 422


async def test_a_deleted_user_goes_with_everything(data_dir: Path) -> None:
    runtimes: list[Runtime] = []
    async with serving(settings(data_dir), runtimes.append) as client:
        owner, other = [await create_account(client) for _ in range(2)]
        group_id = await new_group(client, owner)
        devices = [await create_device(client, owner) for _ in range(60)]
        await furnish(client, devices[0], group_id)
        await furnish(client, devices[-1], group_id)
        await until_present(data_dir, devices[-1].id)
        now = datetime.now(UTC)
        by = User(other.id, other.username, other.email, UserRole.ADMIN, True, now, now)
        job = await runtimes[0].jobs.delete_user(UserCaller(by), owner.id)
        for device in (devices[0], devices[-1]):
            refused = await client.get(f"{API}/devices/status", headers=device.headers)
            assert refused.status_code == 401
        login = {"username": owner.username, "password": "correct horse battery"}
        assert (await client.post(f"{API}/auth/login", json=login)).status_code == 401
        done = await until_done(client, job.id, other)
        counts = {"devices": 60, "keys": 60, "memberships": 2, "groups": 1, "points": 12}
        assert {name: done["counts"][name] for name in counts} == counts
        assert [leftovers(data_dir, device.id) for device in devices] == [{}] * 60
        of_user = "SELECT count(*) FROM {} WHERE user_id = ?"
        for role, table in (
            ("registry", "groups"),
            ("registry", "refresh_tokens"),
            ("telemetry", "points"),
            ("events", "events"),
        ):
            assert rows(data_dir, role, of_user.format(table), owner.id) == [(0,)], table
        assert rows(data_dir, "registry", "SELECT 1 FROM users WHERE id = ?", owner.id) == []


async def test_a_job_waits_for_a_store_that_is_away(tmp_path: Path) -> None:
    clock = [1_800_000_000.0]
    registry = SqlRegistry(f"sqlite:///{tmp_path}/registry.db")
    telemetry = SqliteTelemetryStore(tmp_path / "telemetry.db")
    cache = MemoryCache(CacheTtls())
    events = SqlEventStore(f"sqlite:///{tmp_path}/events.db")  # not opened yet
    for store in (registry, telemetry, cache):
        await store.open()
    keys = KeyAuthenticator(registry, cache, FixedEpoch(), Metrics(), lambda: clock[0])
    write_clock = WriteClock(lambda: Lane(0, 1), lambda: clock[0])
    work = DeletionWork(registry, telemetry, cache, events, keys, write_clock, settle_s=5)
    worker = JobWorker(registry, dict.fromkeys(DELETIONS, work), now=lambda: clock[0])
    now = datetime.fromtimestamp(clock[0], UTC)
    user = await registry.create_user(NewUser("ada", "ada@example.com", "hash"), now)
    key = NewKey("d" * 64, "iotd_x")
    device = await registry.create_device(NewDevice(user.id, "x"), key, now)
    begun = await registry.delete_device(device.id, user.id, None, now)
    assert begun is not None
    job_id = begun.id

    async def until(reached: Callable[[Job], bool], advance_s: float = 0) -> Job:
        clock[0] += advance_s
        worker.wake()
        for _ in range(200):
            job = await registry.job(job_id)
            assert job is not None
            if reached(job):
                return job
            await asyncio.sleep(0.02)
        raise AssertionError(job)

    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        waiting = await until(lambda job: job.attempts == 1)
        assert (waiting.stage, waiting.status is JobStatus.DONE) == (0, False)
        assert waiting.due_at == now + timedelta(seconds=1)
        await until(lambda job: job.attempts == 2, advance_s=1)
        await events.open()
        settling = await until(lambda job: job.stage == 1, advance_s=2)
        assert settling.status is JobStatus.RUNNING
        assert settling.finished_at is None
        done = await until(lambda job: job.status is JobStatus.DONE, advance_s=5)
        assert done.finished_at is not None
        swept = await until(lambda job: job.due_at is None, advance_s=600)
        assert swept.finished_at == done.finished_at
    finally:
        stop.set()
        await asyncio.wait_for(task, 5)
        for store in (registry, telemetry, cache, events):
            await store.close()


class SlowTelemetry(SqliteTelemetryStore):
    """Its deletion takes until it is let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.begun, self.let_go, self.given_up = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def delete_range(self, device_id: int, within: TimeRange, written_us: int) -> int:
        self.begun.set()
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.given_up.set()
            raise
        return await super().delete_range(device_id, within, written_us)


class LongDeletion:
    """A worker in the middle of a device's deletion, and the clock that leases go by."""

    def __init__(self, directory: Path) -> None:
        self.now_s = 1_800_000_000.0
        self.registry = SqlRegistry(f"sqlite:///{directory}/registry.db")
        self.telemetry = SlowTelemetry(directory / "telemetry.db")
        self._cache = MemoryCache(CacheTtls())
        self._events = SqlEventStore(f"sqlite:///{directory}/events.db")
        self._stop = asyncio.Event()
        self.job_id = 0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.now_s, UTC)

    async def __aenter__(self) -> "LongDeletion":
        for store in (self.registry, self.telemetry, self._cache, self._events):
            await store.open()
        user = await self.registry.create_user(NewUser("ada", "ada@example.com", "x"), self.now())
        new, key = NewDevice(user.id, "x"), NewKey("d" * 64, "iotd_x")
        device = await self.registry.create_device(new, key, self.now())
        job = await self.registry.delete_device(device.id, user.id, None, self.now())
        assert job is not None
        self.job_id = job.id
        self._task = asyncio.create_task(self._worker().run(self._stop))
        await asyncio.wait_for(self.telemetry.begun.wait(), 5)
        return self

    def _worker(self) -> JobWorker:
        cache, events = self._cache, self._events

        def clock() -> float:
            return self.now_s

        keys = KeyAuthenticator(self.registry, cache, FixedEpoch(), Metrics(), clock)
        write_clock = WriteClock(lambda: Lane(0, 1), clock)
        work = DeletionWork(
            self.registry, self.telemetry, cache, events, keys, write_clock, settle_s=5
        )
        return JobWorker(self.registry, dict.fromkeys(DELETIONS, work), now=clock)

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        self.telemetry.let_go.set()
        await asyncio.wait_for(self._task, 5)
        for store in (self.registry, self.telemetry, self._cache, self._events):
            await store.close()

    async def claimed_by_another(self, after_s: float) -> Job | None:
        """Whether a second process takes the job over when so much time has gone by."""
        self.now_s += after_s
        return await self.registry.claim_job("other", self.now(), self.now() + timedelta(hours=1))


async def test_a_long_deletion_keeps_its_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iotflow.jobs.worker._SAVE_AFTER_S", 0.02)
    async with LongDeletion(tmp_path) as deletion:
        for _ in range(4):
            assert await deletion.claimed_by_another(after_s=15) is None
            await asyncio.sleep(0.3)
        deletion.telemetry.let_go.set()
        for _ in range(200):
            job = await deletion.registry.job(deletion.job_id)
            assert job is not None
            if job.stage == 1:
                break
            await asyncio.sleep(0.02)
        assert (job.stage, job.attempts) == (1, 0)


async def test_a_deletion_whose_lease_is_lost_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iotflow.jobs.worker._SAVE_AFTER_S", 0.5)
    async with LongDeletion(tmp_path) as deletion:
        taken = await deletion.claimed_by_another(after_s=30)
        assert taken is not None
        await asyncio.wait_for(deletion.telemetry.given_up.wait(), 5)
        job = await deletion.registry.job(deletion.job_id)
        assert job is not None
        assert (job.stage, job.attempts) == (0, 0), "it is the other's now"
