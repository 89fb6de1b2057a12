"""Replay, verification and warming, as an administrator asks for them."""

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from iotflow.cli.operate import create_admin
from iotflow.domain.events import Event
from iotflow.runtime import Runtime
from iotflow.settings import JobSettings, PipelineSettings, RateLimitSettings, Settings
from iotflow.stores.telemetry.protocol import MarkQuery
from tests.api.conftest import (
    PASSWORD,
    Account,
    DeviceUnderTest,
    create_account,
    create_device,
    serving,
)
from tests.stored import stored

API = "/api/v1"
LONGEST_S = 20.0
T0 = 1_767_225_600_000


@dataclass
class Service:
    client: httpx.AsyncClient
    data_dir: Path
    admin: dict[str, str]
    runtime: Runtime

    async def submit(self, device: DeviceUnderTest, **data: Any) -> None:
        await self.post("/telemetry", device.headers, {"data": data})

    async def batch(self, device: DeviceUnderTest, *times_ms: int, **data: Any) -> None:
        records = [{"timestamp": at_ms, "data": data} for at_ms in times_ms]
        await self.post("/telemetry/batch", device.headers, {"records": records})

    async def post(self, path: str, headers: dict[str, str], body: Any) -> dict[str, Any]:
        answer = await self.client.post(f"{API}{path}", json=body, headers=headers)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def begin(self, path: str, **body: Any) -> dict[str, Any]:
        """The job that a call has begun, when it is done."""
        begun = await self.post(f"/admin/{path}", self.admin, body)
        return await self.until_done(begun["job"]["id"])

    async def until_done(self, job_id: int) -> dict[str, Any]:
        async def done() -> dict[str, Any] | None:
            answer = await self.client.get(f"{API}/jobs/{job_id}", headers=self.admin)
            assert answer.status_code == 200, answer.text
            return answer.json() if answer.json()["status"] == "done" else None

        found: dict[str, Any] = await until(done)
        return found

    def rows(self, role: str, statement: str, *values: Any) -> list[Any]:
        return stored(self.data_dir / f"{role}.db", statement, *values)

    def events(self) -> dict[str, Any]:
        """All events of submissions, by id."""
        found = self.rows(
            "events",
            "SELECT id, event_type, timestamp_ms, user_id, device_id, details FROM events"
            " WHERE event_type = 'telemetry.submitted'",
        )
        return {row[0]: (*row[1:5], json.loads(row[5])) for row in found}

    async def until_events(self, number: int) -> dict[str, Any]:
        async def there() -> dict[str, Any] | None:
            found = await asyncio.to_thread(self.events)
            return found if len(found) >= number else None

        found: dict[str, Any] = await until(there) if number else {}
        assert len(found) == number
        return found


async def until(there: Any) -> Any:
    deadline = time.monotonic() + LONGEST_S
    while time.monotonic() < deadline:
        if (found := await there()) is not None:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError("it takes too long")


def settings(data_dir: Path, event_queue: int = 10_000) -> Settings:
    return Settings.load(
        data_dir=data_dir,
        rate_limits=RateLimitSettings(enabled=False),
        jobs=JobSettings(settle_s=0.3),
        pipeline=PipelineSettings(event_queue=event_queue, drain_s=1.0),
    )


@pytest.fixture
async def service(data_dir: Path) -> AsyncIterator[Service]:
    async with running(data_dir) as service:
        yield service


def ensure_admin(data_dir: Path) -> None:
    if not (data_dir / "registry.db").exists():
        create_admin("root", "root@example.com", PASSWORD, data_dir)


@asynccontextmanager
async def running(data_dir: Path, event_queue: int = 10_000) -> AsyncIterator[Service]:
    """A service with an admin."""
    await asyncio.to_thread(ensure_admin, data_dir)
    runtimes: list[Runtime] = []
    async with serving(settings(data_dir, event_queue), runtimes.append) as client:
        login = {"username": "root", "password": PASSWORD}
        session = (await client.post(f"{API}/auth/login", json=login)).json()
        admin = {"Authorization": f"Bearer {session['access_token']}"}
        yield Service(client, data_dir, admin, runtimes[0])


@pytest.fixture
async def owner(service: Service) -> Account:
    return await create_account(service.client)


@pytest.fixture
async def device(service: Service, owner: Account) -> DeviceUnderTest:
    return await create_device(service.client, owner)


@contextmanager
def events_away(data_dir: Path) -> Iterator[None]:
    """Somebody holds the event log's file, so that every write to it fails after a while."""
    connection = sqlite3.connect(data_dir / "events.db", isolation_level=None)
    with closing(connection):
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


async def test_a_replay_makes_the_events_again_as_they_were(
    service: Service, owner: Account, device: DeviceUnderTest
) -> None:
    other = await create_device(service.client, owner)
    await service.submit(device, b=1, a=2.5)
    await service.submit(other, door_open=True)
    await service.batch(device, T0, T0 + 60_000, T0 + 1, temperature=1)
    logged = await service.until_events(3)
    kept = next(iter(logged))
    service.rows("events", "DELETE FROM events WHERE id <> ?", kept)
    job = await service.begin("replays", start_time="-1h")
    assert (job["counts"]["submissions"], job["counts"]["events"]) == (3, 2)
    assert job["progress"] == {"done": 2, "total": 2}
    replayed = await service.until_events(3)
    assert replayed.pop(kept) == logged.pop(kept)
    for event in logged.values():
        event[-1]["measurements"].sort()  # the order in which they were sent is nowhere
    assert replayed == logged
    again = await service.begin("replays", start_time="-1h")
    assert (again["counts"]["submissions"], again["counts"]["events"]) == (3, 0)


async def test_a_replay_can_be_of_a_device_and_of_a_time(
    service: Service, owner: Account, device: DeviceUnderTest
) -> None:
    other = await create_device(service.client, owner)
    await service.submit(device, a=1)
    await service.submit(other, a=1)
    await service.batch(device, T0, a=1)
    logged = await service.until_events(3)
    first_ms = min(int(event[1]) for event in logged.values())
    service.rows("events", "DELETE FROM events")
    nothing = await service.begin("replays", start_time="-2h", end_time=first_ms)
    assert nothing["counts"]["submissions"] == 0
    recent = await service.begin("replays", start_time="-1h", device_id=device.id, late=3600)
    assert recent["counts"]["events"] == 1
    everything = await service.begin("replays", start_time="-1h", device_id=device.id)
    assert everything["counts"]["events"] == 1
    found = await service.until_events(2)
    assert {event[3] for event in found.values()} == {device.id}


HOUR_MS = 3_600_000


@pytest.mark.parametrize("hours", [(0, 1), (0, 20, 40), (30, 80), tuple(range(0, 240, 20))])
async def test_a_batch_that_reaches_further_back_than_was_said_is_whole_or_not_there(
    service: Service, device: DeviceUnderTest, hours: tuple[int, ...]
) -> None:
    now_ms = int(time.time() * 1000)
    await service.batch(device, *(now_ms - each * HOUR_MS for each in hours), a=1)
    logged = await service.until_events(1)
    service.rows("events", "DELETE FROM events")
    job = await service.begin("replays", start_time="-1h", late=3600)
    found = await asyncio.to_thread(service.events)
    assert found == ({} if min(hours) > 26 else logged)
    assert job["counts"]["submissions"] == len(found)


async def test_points_as_late_as_was_said_cost_no_look_at_all_others(
    service: Service, device: DeviceUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ms = int(time.time() * 1000)
    await service.batch(device, T0, a=1)
    await service.batch(device, now_ms - HOUR_MS, now_ms, a=1)
    await service.until_events(2)
    asked: list[int] = []
    store = service.runtime.telemetry
    marks = store.marks

    async def counting(query: MarkQuery) -> Any:
        asked.append(query.range.start_ms)
        return await marks(query)

    monkeypatch.setattr(store, "marks", counting)
    job = await service.begin("replays", start_time="-1h", late=3600)
    assert job["counts"]["submissions"] == 1
    assert len(asked) == 1
    assert asked[0] > now_ms - 27 * HOUR_MS


async def test_events_dropped_in_an_outage_come_back_by_themselves(data_dir: Path) -> None:
    async with running(data_dir, event_queue=20) as service:
        owner = await create_account(service.client)
        devices = [await create_device(service.client, owner) for _ in range(3)]
        await service.submit(devices[0], a=0)
        await service.until_events(1)
        with events_away(data_dir):
            for number in range(30):
                for each in devices:
                    await service.submit(each, a=number)
            dropped = service.runtime.lost_events.replayable
        assert dropped > 20
        events = await service.until_events(91)
        assert len({event[1] for event in events.values()}) > 10
        listed = await service.client.get(f"{API}/jobs", headers=service.admin)
        automatic = [job for job in listed.json()["items"] if job["kind"] == "event_replay"]
        assert automatic
        assert all(job["requested_by"] is None for job in automatic)
        assert all(job["parameters"]["automatic"] for job in automatic)
        theirs = await service.client.get(f"{API}/jobs", headers=owner.headers)
        assert theirs.json()["items"] == []
        metrics = (await service.client.get("/metrics")).text
        assert f'iotflow_events_lost_total{{replayable="yes"}} {float(dropped)}' in metrics


async def test_the_event_of_a_point_from_long_ago_comes_back_too(data_dir: Path) -> None:
    async with running(data_dir) as service:
        device = await create_device(service.client, await create_account(service.client))
        now_ms = service.runtime.now_ms()
        ages_ms = (0, 23 * 3_600_000, 25 * 3_600_000, 400 * 86_400_000)
        for age_ms in ages_ms:
            body = {"data": {"a": 1, "b": 2}, "timestamp": now_ms - age_ms}
            await service.post("/telemetry", device.headers, body)
        logged = await service.until_events(len(ages_ms))
        ranges = [event[-1].get("first_ms") for event in logged.values()]
        assert sorted(each for each in ranges if each) == sorted(
            now_ms - age for age in ages_ms[2:]
        )
        service.rows("events", "DELETE FROM events WHERE event_type = 'telemetry.submitted'")
        for event_id, (event_type, at_ms, user_id, device_id, details) in logged.items():
            lost = Event(event_id, event_type, at_ms, user_id, device_id, details)
            service.runtime.lost_events.note(lost)
        assert await service.until_events(len(ages_ms)) == logged


async def test_events_lost_at_a_stop_come_back_after_the_next_start(data_dir: Path) -> None:
    async with running(data_dir) as service:
        owner = await create_account(service.client)
        device = await create_device(service.client, owner)
        await service.submit(device, a=0)
        await service.until_events(1)
        await asyncio.sleep(0.3)  # the rest of the log is written
        holding = events_away(data_dir)
        holding.__enter__()
        for number in range(5):
            await service.submit(device, a=number)
    holding.__exit__(None, None, None)
    with closing(sqlite3.connect(data_dir / "events.db")) as connection:
        (before,) = connection.execute(
            "SELECT count(*) FROM events WHERE event_type = 'telemetry.submitted'"
        ).fetchone()
    assert before == 1
    async with running(data_dir) as service:
        await service.until_events(6)


async def test_a_replay_goes_on_after_a_restart(data_dir: Path) -> None:
    async with running(data_dir) as service:
        owner = await create_account(service.client)
        devices = [await create_device(service.client, owner) for _ in range(4)]
        for each in devices:
            await service.submit(each, a=1)
        await service.until_events(4)
        service.rows("events", "DELETE FROM events")
        begun = await service.post("/admin/replays", service.admin, {"start_time": "-1h"})
        job_id = begun["job"]["id"]
    with closing(sqlite3.connect(data_dir / "registry.db")) as connection, connection:
        # As a process that was killed after the second device leaves it.
        connection.execute(
            "UPDATE jobs SET status = 'running', stage = 1, after_device_id = ?,"
            " finished_at = NULL, due_at = created_at, lease_owner = 'dead',"
            " lease_until = created_at, counts = ?, state = ?",
            (
                devices[1].id,
                json.dumps({"devices": 2, "submissions": 2, "events": 2}),
                json.dumps({"total": 4}),
            ),
        )
    with closing(sqlite3.connect(data_dir / "events.db")) as connection, connection:
        connection.execute("DELETE FROM events")
    async with running(data_dir) as service:
        job = await service.until_done(job_id)
        assert job["counts"] == {"devices": 4, "submissions": 4, "events": 4}
        events = await service.until_events(2)
        assert {event[3] for event in events.values()} == {each.id for each in devices[2:]}


async def test_stores_that_agree_are_clean(
    service: Service, owner: Account, device: DeviceUnderTest
) -> None:
    await service.submit(device, a=1, b="x", c=True)
    await service.batch(device, T0, T0 + 1, a=1)
    await service.client.get(f"{API}/telemetry/{device.id}/latest", headers=owner.headers)
    await service.until_events(2)
    job = await service.begin("verifications", start_time=T0 - 1)
    assert job["findings"] == []
    wanted = {"devices": 1, "points": 5, "submissions": 2, "cached": 1, "repaired": 0}
    assert {name: job["counts"][name] for name in wanted} == wanted
    faults = ("latest_in_cache", "latest_in_store", "events_missing", "unknown_device")
    assert [job["counts"][name] for name in faults] == [0, 0, 0, 0]


async def test_what_differs_is_found_and_repaired(
    service: Service, owner: Account, device: DeviceUnderTest
) -> None:
    other = await create_device(service.client, owner)
    for each in (device, other):
        await service.submit(each, a=1, b=2)
        answer = await service.client.get(
            f"{API}/telemetry/{each.id}/latest", headers=owner.headers
        )
        assert answer.status_code == 200
    await service.until_events(2)
    await spoil(service, device)
    found = await service.begin("verifications")
    faults = {(each["fault"], each["device_id"]) for each in found["findings"]}
    assert faults == {
        ("latest_in_cache", device.id),
        ("latest_in_store", device.id),
        ("events_missing", device.id),
        ("unknown_device", 999_999),
    }
    assert not any(each["repaired"] for each in found["findings"])
    repaired = await service.begin("verifications", repair=True)
    assert repaired["counts"]["repaired"] == 3
    answer = await service.client.get(f"{API}/telemetry/{device.id}/latest", headers=owner.headers)
    assert answer.json()["data"] == {"a": 1, "b": 2}
    await service.until_events(2)
    left = await service.begin("verifications")
    assert [each["fault"] for each in left["findings"]] == ["unknown_device"]


async def spoil(service: Service, device: DeviceUnderTest) -> None:
    """A fault of each kind, straight into the files and the cache."""
    telemetry = service.runtime.telemetry
    await telemetry.latest([device.id])  # what is in the journal goes to its place
    service.rows("events", "DELETE FROM events WHERE device_id = ?", device.id)
    service.rows(
        "telemetry", "DELETE FROM latest WHERE device_id = ? AND measurement = 'b'", device.id
    )
    service.rows("telemetry", "INSERT INTO latest VALUES (999999, 'x', 1)")


async def test_a_repaired_event_is_that_of_the_whole_submission(
    service: Service, device: DeviceUnderTest
) -> None:
    now_ms = service.runtime.now_ms()
    await service.batch(device, *[now_ms - hours * 3_600_000 for hours in (20, 22, 30, 32)], a=1)
    logged = await service.until_events(1)
    service.rows("events", "DELETE FROM events WHERE event_type = 'telemetry.submitted'")
    job = await service.begin("verifications", start_time="-24h", repair=True)
    assert (job["counts"]["points"], job["counts"]["repaired"]) == (2, 1)
    assert await service.until_events(1) == logged


async def test_a_busy_device_raises_no_false_alarm(
    service: Service, owner: Account, device: DeviceUnderTest
) -> None:
    await service.submit(device, a=0)
    await service.client.get(f"{API}/telemetry/{device.id}/latest", headers=owner.headers)
    stop = asyncio.Event()

    async def load() -> int:
        number = 0
        while not stop.is_set():
            number += 1
            await service.submit(device, a=number)
            await asyncio.sleep(0.01)
        return number

    loads = [asyncio.create_task(load()) for _ in range(3)]
    try:
        jobs = [await service.begin("verifications", start_time="-5m") for _ in range(2)]
    finally:
        stop.set()
        sent = sum(await asyncio.gather(*loads))
    assert sent > 50
    assert [job["findings"] for job in jobs] == [[], []]
    assert jobs[1]["counts"]["submissions"] > 10


async def test_points_of_a_device_under_deletion_are_no_finding(
    service: Service, owner: Account, device: DeviceUnderTest
) -> None:
    await service.submit(device, a=1)
    gone = await service.client.delete(f"{API}/devices/{device.id}", headers=owner.headers)
    # Its last pass, minutes later, takes what comes after this.
    await service.until_done(gone.json()["job"]["id"])
    service.rows("telemetry", "INSERT INTO latest VALUES (?, 'x', 1)", device.id)
    job = await service.begin("verifications")
    assert job["findings"] == []
    assert service.rows("telemetry", "SELECT measurement FROM latest") == [("x",)]
    service.rows("registry", "UPDATE jobs SET due_at = NULL WHERE kind = 'device_deletion'")
    job = await service.begin("verifications")
    assert [each["fault"] for each in job["findings"]] == ["unknown_device"]


async def test_a_warm_cache_knows_latest_values_and_keys(
    service: Service, owner: Account, device: DeviceUnderTest
) -> None:
    silent = await create_device(service.client, owner)
    await service.submit(device, a=1)
    job = await service.begin("warmings")
    assert job["counts"] == {"devices": 2, "warmed": 2, "filled": 2, "keys": 2}
    read = await service.client.get(f"{API}/telemetry/{device.id}/latest", headers=owner.headers)
    assert read.headers["X-Cache"] == "hit"
    again = await service.begin("warmings")
    assert again["counts"]["filled"] == 0
    none_seen = await service.begin("warmings", seen_since="now")
    assert (none_seen["counts"]["devices"], none_seen["counts"]["warmed"]) == (2, 0)
    assert silent.id != device.id


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("replays", {}, "start_time"),
        ("replays", {"start_time": "yesterday"}, "start_time"),
        ("replays", {"start_time": "-1h", "end_time": "-2h"}, "start_time"),
        (
            "replays",
            {"start_time": "2100-01-01T00:00:00Z", "end_time": "2101-01-01T00:00:00Z"},
            "start_time",
        ),
        ("replays", {"start_time": 12}, "start_time"),
        ("replays", {"start_time": "-1h", "late": -1}, "late"),
        ("replays", {"start_time": "-1h", "device_id": 0}, "device_id"),
        ("verifications", {"end_time": "tomorrow"}, "end_time"),
        ("verifications", {"repair": "yes"}, "repair"),
        ("warmings", {"seen_since": "soon"}, "seen_since"),
    ],
)
async def test_what_cannot_be_is_said(
    service: Service, path: str, body: dict[str, Any], field: str
) -> None:
    answer = await service.client.post(f"{API}/admin/{path}", json=body, headers=service.admin)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"].split(".")[0] == field


async def test_jobs_are_listed_page_by_page(service: Service, owner: Account) -> None:
    begun = [await service.begin("warmings") for _ in range(3)]
    ids: list[int] = []
    cursor: str | None = None
    for _ in range(3):
        query = {"limit": "1", "kind": "cache_warming"} | ({"cursor": cursor} if cursor else {})
        page = (await service.client.get(f"{API}/jobs", params=query, headers=service.admin)).json()
        ids += [job["id"] for job in page["items"]]
        cursor = page["next_cursor"]
    assert ids == [job["id"] for job in reversed(begun)]
    assert cursor is None
    assert (await service.client.get(f"{API}/jobs", headers=owner.headers)).json()["items"] == []
