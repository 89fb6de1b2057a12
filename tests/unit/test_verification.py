"""Verification: what it looks at, what it writes, and that it gives way to stops and replicas."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from iotflow.domain.clock import Lane, WriteClock
from iotflow.domain.devices import Device
from iotflow.domain.jobs import NOBODY, Job, JobKind, JobStatus
from iotflow.domain.points import LatestPoint, Point, Submission
from iotflow.domain.times import DAY_MS
from iotflow.jobs.worker import HeldJob
from iotflow.maintenance.pace import Pace
from iotflow.maintenance.parameters import ALL_POINTS, VerificationParameters, as_json
from iotflow.maintenance.replay import EventWriter, StopNowError
from iotflow.maintenance.submissions import MarkRange, StoredSubmission, SubmissionReader
from iotflow.maintenance.verification import Looked, VerificationWork
from iotflow.stores.cache.memory import MemoryCache
from iotflow.stores.cache.ttls import CacheTtls
from iotflow.stores.events.protocol import EventStore
from iotflow.stores.events.sql import SqlEventStore
from iotflow.stores.registry.protocol import NewDevice, NewJob, NewKey, NewUser
from iotflow.stores.registry.sql import SqlRegistry
from iotflow.stores.telemetry.protocol import HistoryQuery, Page
from iotflow.stores.telemetry.sqlite import SqliteTelemetryStore
from tests.stored import stored

NOW_S = 1_800_000_000.0
NOW_MS = int(NOW_S * 1000)
NOW = datetime.fromtimestamp(NOW_S, UTC)
EVERYTHING = VerificationParameters(ALL_POINTS.start_ms, ALL_POINTS.end_ms)


async def unhurried(_seconds: float) -> None:
    """No rest: the tests have no other work to give way to."""


class World:
    """The stores of one device."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "telemetry.db"
        self.registry = SqlRegistry(f"sqlite:///{directory}/registry.db")
        self.telemetry = SqliteTelemetryStore(self.path)
        self.cache = MemoryCache(CacheTtls())
        self.events = SqlEventStore(f"sqlite:///{directory}/events.db")
        self.pace = Pace(1.0, sleep=unhurried)
        self.device_id = 0
        self.user_id = 0

    async def open(self) -> None:
        for store in (self.registry, self.telemetry, self.cache, self.events):
            await store.open()
        user = await self.registry.create_user(NewUser("ada", "ada@example.com", "hash"), NOW)
        new = NewDevice(user.id, "boiler")
        device: Device = await self.registry.create_device(new, NewKey("d" * 64, "iotd_x"), NOW)
        self.user_id, self.device_id = user.id, device.id

    async def close(self) -> None:
        for store in (self.registry, self.telemetry, self.cache, self.events):
            await store.close()

    async def write(self, written_ms: int, **points: int) -> None:
        """Points of measurements at these times, in one submission."""
        found = tuple(Point(at_ms, name, 1.5) for name, at_ms in points.items())
        submission = Submission(self.device_id, self.user_id, found, written_ms * 1000)
        await self.telemetry.write(submission)

    async def log_events(self, *, but: frozenset[int] = frozenset()) -> None:
        """Those of what was submitted, but for submissions written then (ms)."""
        reader, writer = SubmissionReader(self.telemetry, self.pace), self.writer()
        written = MarkRange(0, 2**60)
        found, _ = await reader.read(self.device_id, ALL_POINTS, written, nothing)
        logged = [each for each in found if each.written_us // 1000 not in but]
        await writer.append(self.device_id, logged, nothing)

    def writer(self) -> EventWriter:
        return EventWriter(self.events, self.registry, self.pace)

    async def forget_latest(self) -> None:
        """Take all of the telemetry store's latest index away."""
        await self.telemetry.latest([self.device_id])  # what is in the journal goes to its place
        stored(self.path, "DELETE FROM latest")

    def work(
        self, events: EventStore | None = None, events_kept_ms: int | None = None
    ) -> VerificationWork:
        looked = Looked(self.registry, self.telemetry, self.cache, events or self.events)
        clock = WriteClock(lambda: Lane(0, 1), lambda: NOW_S)
        return VerificationWork(looked, clock, self.pace, events_kept_ms=events_kept_ms)

    async def held(self, wanted: VerificationParameters = EVERYTHING) -> HeldJob:
        new = NewJob(JobKind.VERIFICATION, NOBODY, 0, as_json(wanted))
        await self.registry.add_job(new, NOW)
        job = await self.registry.claim_job("me", NOW, NOW + timedelta(seconds=20))
        assert job is not None
        return HeldJob(self.registry, "me", job, lambda: NOW_S)

    async def verified(self, **retention: int) -> Job:
        held = await self.held()
        await self.work(**retention).run(held, asyncio.Event())
        assert held.job.status is JobStatus.DONE
        return held.job


async def nothing() -> None: ...


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.open()
    yield world
    await world.close()


def faults(job: Job) -> list[tuple[str, str]]:
    return [(each["fault"], each["detail"]) for each in job.report.get("findings", [])]


async def test_what_is_older_than_the_events_has_a_latest_value_all_the_same(world: World) -> None:
    old_ms, new_ms = NOW_MS - 30 * DAY_MS, NOW_MS - 60_000
    await world.write(old_ms, a=old_ms)
    await world.write(new_ms, b=new_ms)
    await world.forget_latest()
    job = await world.verified(events_kept_ms=DAY_MS)
    assert sorted(faults(job)) == [
        ("events_missing", "1 of 1 submissions, the first of 2027-01-15T07:59:00.000Z"),
        ("latest_in_store", "a of 2026-12-16T08:00:00.000Z"),
        ("latest_in_store", "b of 2027-01-15T07:59:00.000Z"),
    ]
    assert (job.counts["points"], job.counts["submissions"]) == (2, 2)
    kept_for_ever = await world.verified()
    assert kept_for_ever.counts["events_missing"] == 2


async def test_the_newest_point_counts_in_whichever_pass_it_is_found(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = world.work()
    monkeypatch.setattr(
        work, "_reader", SubmissionReader(world.telemetry, world.pace, page=5, max_held=8)
    )
    at_ms = NOW_MS - DAY_MS
    await world.write(at_ms, b=at_ms)
    for number in range(1, 30):
        await world.write(at_ms + number, a=at_ms + 100 + number)
    await world.write(at_ms + 500, b=at_ms + 50)  # newer than the first, and written last
    await world.log_events()
    # An index that reaches the first point alone.
    await world.telemetry.latest([world.device_id])
    stored(world.path, "UPDATE latest SET timestamp_ms = ? WHERE measurement = 'b'", at_ms)
    held = await world.held()
    await work.run(held, asyncio.Event())
    assert [fault for fault, _ in faults(held.job)] == ["latest_in_store"]
    assert held.job.report["findings"][0]["detail"].startswith("b of ")


class StoppingEvents:
    """The event log, which has the work stop at its first answer to `method`."""

    def __init__(self, events: SqlEventStore, method: str, stop: asyncio.Event) -> None:
        self.answers = 0
        self._events = events
        self._method = method
        self._stop = stop

    def __getattr__(self, name: str) -> Any:
        asked: Callable[..., Awaitable[Any]] = getattr(self._events, name)
        if name != self._method:
            return asked

        async def counted(*arguments: Any) -> Any:
            self.answers += 1
            self._stop.set()
            return await asked(*arguments)

        return counted


@pytest.mark.parametrize("method", ["query", "append"])
async def test_a_stop_is_seen_in_the_middle_of_a_device(
    world: World, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iotflow.maintenance.verification._EVENTS_A_PAGE", 5)
    monkeypatch.setattr("iotflow.maintenance.replay._EVENTS_AT_ONCE", 5)
    for number in range(40):
        await world.write(NOW_MS - DAY_MS + number, a=NOW_MS - DAY_MS + number)
    if method == "query":
        await world.log_events()
    stop = asyncio.Event()
    events: Any = StoppingEvents(world.events, method, stop)
    held = await world.held(
        VerificationParameters(ALL_POINTS.start_ms, ALL_POINTS.end_ms, repair=True)
    )
    await world.work(events).run(held, stop)
    assert events.answers == 1
    assert held.job.status is not JobStatus.DONE
    assert await world.registry.claim_job("another", NOW, NOW + timedelta(seconds=20)) == held.job


async def test_events_are_appended_a_few_at_a_time(world: World) -> None:
    await world.write(NOW_MS, a=NOW_MS)
    reader = SubmissionReader(world.telemetry, world.pace)
    found, _ = await reader.read(world.device_id, ALL_POINTS, MarkRange(0, 2**60), nothing)
    many: list[StoredSubmission] = found * 2_000
    looks = 0

    async def between() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise StopNowError

    with pytest.raises(StopNowError):
        await world.writer().append(world.device_id, many, between)
    assert looks == 3


async def test_a_stop_is_seen_between_the_measurements_of_an_index(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_ms = NOW_MS - DAY_MS
    await world.write(at_ms, **{f"m{number}": at_ms for number in range(20)})
    await world.log_events()
    await world.forget_latest()
    stop, looked_up = asyncio.Event(), 0
    history = world.telemetry.history

    async def stopping(query: HistoryQuery) -> Page[Point]:
        nonlocal looked_up
        looked_up += 1
        stop.set()
        return await history(query)

    monkeypatch.setattr(world.telemetry, "history", stopping)
    held = await world.held()
    await world.work().run(held, stop)
    assert (looked_up, held.job.status is JobStatus.DONE) == (1, False)


async def test_a_stop_is_seen_between_two_looks_at_the_cache(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.write(NOW_MS - DAY_MS, a=NOW_MS - DAY_MS)
    stop, looks = asyncio.Event(), 0

    async def stopping(device_ids: list[int]) -> dict[int, list[LatestPoint]]:
        nonlocal looks
        looks += 1
        stop.set()
        return {device_id: [] for device_id in device_ids}  # it has lost the point

    monkeypatch.setattr(world.cache, "latest", stopping)
    held = await world.held()
    await world.work().run(held, stop)
    assert (looks, held.job.status is JobStatus.DONE) == (1, False)
