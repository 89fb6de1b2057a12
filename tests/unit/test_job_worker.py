"""The worker forgets what nobody will ask for any more, however much it is."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from iotflow.domain.jobs import Job, JobKind, JobStatus
from iotflow.jobs.worker import HeldJob, JobWorker
from iotflow.stores.registry.protocol import JobQuery, NewJob
from iotflow.stores.registry.sql import SqlRegistry

NOW_S = 1_800_000_000.0
NOW = datetime.fromtimestamp(NOW_S, UTC)


async def ended(registry: SqlRegistry, at: datetime) -> Job:
    await registry.add_job(NewJob(JobKind.CACHE_WARMING, 1, 0, {}), at)
    job = await registry.claim_job("me", at, at + timedelta(minutes=1))
    assert job is not None
    over = replace(job, status=JobStatus.DONE, due_at=None, finished_at=at)
    assert await registry.save_job(over, "me", None)
    return over


class Work:
    """Ends each job at once."""

    def __init__(self) -> None:
        self.done: list[int] = []

    async def run(self, held: HeldJob, _stop: asyncio.Event) -> None:
        self.done.append(held.job.id)
        await held.finish(held.job)


async def test_old_jobs_are_forgotten_between_others_until_none_is_left(
    registry: SqlRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iotflow.stores.registry.sql_jobs._FORGET_AT_ONCE", 3)
    for _ in range(10):
        await ended(registry, NOW - timedelta(days=31))
    kept = await ended(registry, NOW - timedelta(days=29))
    new = [await registry.add_job(NewJob(JobKind.VERIFICATION, 1, 0, {}), NOW) for _ in range(2)]
    work, stop = Work(), asyncio.Event()
    worker = JobWorker(registry, {JobKind.VERIFICATION: work}, now=lambda: NOW_S)
    running = asyncio.create_task(worker.run(stop))
    try:
        deadline = time.monotonic() + 20
        left: list[Job] = []
        while len(left) != 3:
            assert time.monotonic() < deadline, left
            worker.wake()
            await asyncio.sleep(0.02)
            left, _ = await registry.jobs(JobQuery(100))
    finally:
        stop.set()
        await running
    assert [job.id for job in left] == [new[1].id, new[0].id, kept.id]
    assert work.done == [job.id for job in new]
