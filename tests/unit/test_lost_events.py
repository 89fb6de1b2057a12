"""Lost events become a job that makes them again, however the registry fares meanwhile."""

from pathlib import Path
from typing import Any

from iotflow.domain.events import TELEMETRY_SUBMITTED, Event, submission_id
from iotflow.domain.jobs import JobKind
from iotflow.domain.times import DAY_MS
from iotflow.maintenance.lost_events import LostEvents
from iotflow.pipeline.queue import BoundedQueue
from iotflow.stores.registry.protocol import JobQuery
from iotflow.stores.registry.sql import SqlRegistry

NOW_S = 1_800_000_000.0
NOW_MS = int(NOW_S * 1000)


def lost_events(registry: SqlRegistry, woken: list[int] | None = None) -> LostEvents:
    def wake() -> None:
        if woken is not None:
            woken.append(1)

    return LostEvents(registry, settle_s=5, max_future_s=300, wake=wake, now=lambda: NOW_S)


def submitted(device_id: int, at_ms: int, **details: Any) -> Event:
    mark = at_ms * 1000 + 7
    return Event(submission_id(mark, device_id), TELEMETRY_SUBMITTED, at_ms, 1, device_id, details)


async def parameters(registry: SqlRegistry) -> list[dict[str, Any]]:
    jobs, _ = await registry.jobs(JobQuery(limit=10))
    assert all(job.kind is JobKind.EVENT_REPLAY for job in jobs)
    return [job.parameters for job in reversed(jobs)]


async def test_what_is_lost_becomes_one_job_that_grows(registry: SqlRegistry) -> None:
    woken: list[int] = []
    lost = lost_events(registry, woken)
    await lost.keep()
    assert await parameters(registry) == []
    lost.note(submitted(1, NOW_MS))
    lost.note(submitted(2, NOW_MS + 50))
    await lost.keep()
    lost.note(submitted(3, NOW_MS - 100, first_ms=NOW_MS - 9 * DAY_MS, last_ms=NOW_MS - 5))
    await lost.keep()
    (kept,) = await parameters(registry)
    assert kept == {
        "from_us": (NOW_MS - 100) * 1000 + 7,
        "to_us": (NOW_MS + 50) * 1000 + 8,
        "points_from_ms": NOW_MS - 9 * DAY_MS,
        "points_to_ms": NOW_MS + 50 + 300_000 + 1,
        "device_ids": [1, 2, 3],
        "automatic": True,
    }
    assert (lost.replayable, lost.irreplaceable, woken) == (3, 0, [1])
    jobs, _ = await registry.jobs(JobQuery(limit=10))
    assert jobs[0].due_at is not None
    assert jobs[0].due_at.timestamp() == NOW_S + 5


async def test_a_job_that_was_begun_is_left_alone(registry: SqlRegistry) -> None:
    lost = lost_events(registry)
    lost.note(submitted(1, NOW_MS))
    await lost.keep()
    jobs, _ = await registry.jobs(JobQuery(limit=1))
    due_at = jobs[0].due_at
    assert due_at is not None
    assert await registry.claim_job("x", due_at, due_at.replace(year=2100)) is not None
    lost.note(submitted(2, NOW_MS))
    await lost.keep()
    assert [each["device_ids"] for each in await parameters(registry)] == [[1], [2]]


async def test_nothing_noted_is_forgotten_while_the_registry_is_away(tmp_path: Path) -> None:
    registry = SqlRegistry(f"sqlite:///{tmp_path}/registry.db")  # not opened yet
    lost = lost_events(registry)
    lost.note(submitted(1, NOW_MS))
    await lost.keep()
    lost.note(submitted(2, NOW_MS + 1))
    await lost.keep_last()
    await registry.open()
    try:
        await lost.keep()
        (kept,) = await parameters(registry)
    finally:
        await registry.close()
    assert kept["device_ids"] == [1, 2]
    assert kept["to_us"] - kept["from_us"] == 1_001


async def test_very_many_devices_are_all_devices(registry: SqlRegistry) -> None:
    lost = lost_events(registry)
    for device_id in range(1, 1_002):
        lost.note(submitted(device_id, NOW_MS))
    await lost.keep()
    (kept,) = await parameters(registry)
    assert kept["device_ids"] is None


async def test_other_events_are_counted_alone(registry: SqlRegistry) -> None:
    lost = lost_events(registry)
    lost.note(Event("abc", "user.logged_in", NOW_MS, 1, None, {}))
    await lost.keep()
    assert (lost.replayable, lost.irreplaceable) == (0, 1)
    assert await parameters(registry) == []


def test_a_queue_tells_what_it_drops() -> None:
    dropped: list[int] = []
    queue: BoundedQueue[int] = BoundedQueue("q", 2, dropped.append)
    for number in range(4):
        queue.put_nowait(number)
    assert (dropped, queue.waiting()) == ([0, 1], [2, 3])
    queue.close()
    queue.put_nowait(4)
    assert (dropped, queue.dropped) == ([0, 1, 4], 3)
