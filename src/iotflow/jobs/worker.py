"""The worker behind jobs: it works at what is due, until nothing is left of it.

A job is held under a lease, goes on from where it was last saved, and waits with growing delays
where a store is away. So it may repeat a little of its work, which has to do no harm.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import structlog

from iotflow.domain.jobs import Job, JobKind, JobStatus
from iotflow.errors import IoTFlowError
from iotflow.pipeline.backoff import Backoff, pause
from iotflow.stores.registry.protocol import Registry

_POLL_S = 1.0
_LEASE = timedelta(seconds=20)
_SAVE_AFTER_S = 5.0
_KEPT = timedelta(days=30)
_FORGET_EVERY_S = 3_600.0
_LONGEST_DELAY_S = 60

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class LeaseLostError(Exception):
    """Someone else has taken the job over."""


class HeldJob:
    """A job and the lease on it. `job` is as it was saved last; `now` is epoch seconds."""

    def __init__(self, registry: Registry, owner: str, job: Job, now: Callable[[], float]) -> None:
        self.job = job
        self._registry = registry
        self._owner = owner
        self._now_s = now
        self._saved_s = 0.0

    async def save(self, job: Job, *, hold: bool = True) -> Job:
        """Keep how far the job is. Raises LeaseLostError."""
        lease_until = self.now() + _LEASE if hold else None
        if not await self._registry.save_job(job, self._owner, lease_until):
            raise LeaseLostError
        self.job = job
        self._saved_s = time.monotonic()
        return job

    async def save_if_due(self, job: Job) -> Job:
        """The same, once the last time is a while ago."""
        return await self.save(job) if self.is_save_due() else job

    async def keep(self) -> None:
        """Renew the lease where that is due, in the middle of what is not saved yet."""
        if self.is_save_due():
            await self.save(self.job)

    async def keep_during(self, work: Coroutine[Any, Any, T]) -> T:
        """What comes of something long without a middle; the lease is renewed meanwhile.

        `work` is cancelled where this ends before it.

        Raises:
            LeaseLostError: someone else has taken over.
        """
        task = asyncio.create_task(work, name=f"job {self.job.id}")
        try:
            while not (await asyncio.wait({task}, timeout=_SAVE_AFTER_S))[0]:
                await self.save(self.job)
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def finish(self, job: Job) -> Job:
        """The job is done, and never due again."""
        done = replace(job, status=JobStatus.DONE, finished_at=self.now(), due_at=None)
        return await self.save(done, hold=False)

    def is_save_due(self) -> bool:
        return time.monotonic() - self._saved_s >= _SAVE_AFTER_S

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._now_s(), UTC)


class JobWork(Protocol):
    """What is done for jobs of a kind."""

    async def run(self, held: HeldJob, stop: asyncio.Event) -> None:
        """One pass, or what is left of it, saved at its end without a lease.

        With `stop` it saves how far it is and returns soon.

        Raises:
            LeaseLostError: someone else has taken over.
            IoTFlowError: a store is away; it is tried again later.
        """
        ...


class JobWorker:
    """Works at one job at a time, of the kinds of `works`. Several replicas share the jobs.

    `now` is epoch seconds.
    """

    def __init__(
        self,
        registry: Registry,
        works: Mapping[JobKind, JobWork],
        *,
        now: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._works = works
        self._now_s = now
        self._owner = uuid4().hex
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There is a new job: do not wait for the next look."""
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Work at jobs until `stop`; a supervised worker runs this."""
        backoff, forget_at_s = Backoff(cap_s=5.0), 0.0
        while not stop.is_set():
            self._woken.clear()
            try:
                # Some of them between two jobs, so that they hold up none.
                if time.monotonic() >= forget_at_s and not await self._forget_some():
                    forget_at_s = time.monotonic() + _FORGET_EVERY_S
                worked = await self._work_once(stop)
            except IoTFlowError:
                # The registry is away; what it says of the job then, its lease will tell.
                await pause(stop, backoff.next_s())
                continue
            backoff.reset()
            if not worked:
                await self._wait(stop)

    async def _forget_some(self) -> bool:
        """Whether there may be more jobs that nobody will ask for."""
        return await self._registry.forget_jobs(self._now() - _KEPT)

    async def _wait(self, stop: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (stop, self._woken)]
        try:
            await asyncio.wait(waits, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    async def _work_once(self, stop: asyncio.Event) -> bool:
        """One pass of one job; False where none is due."""
        now = self._now()
        job = await self._registry.claim_job(self._owner, now, now + _LEASE, self._works.keys())
        if job is None:
            return False
        if job.status is JobStatus.PENDING:
            job = replace(job, status=JobStatus.RUNNING)
        try:
            held = HeldJob(self._registry, self._owner, job, self._now_s)
            await self._works[job.kind].run(held, stop)
        except LeaseLostError:
            _log.info("job_taken_over", job_id=job.id)
        except IoTFlowError as error:
            await self._postpone(job.id, error)
        return True

    async def _postpone(self, job_id: int, error: IoTFlowError) -> None:
        """A store is away: come again, from where the job was last saved."""
        job = await self._registry.job(job_id)
        if job is None:
            return
        delay_s = min(2**job.attempts, _LONGEST_DELAY_S)
        later = self._now() + timedelta(seconds=delay_s)
        _log.warning("job_postponed", job_id=job_id, error=error.error_code, delay_s=delay_s)
        attempts = min(job.attempts + 1, 16)
        await self._registry.save_job(
            replace(job, attempts=attempts, due_at=later), self._owner, None
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._now_s(), UTC)


def counted(job: Job, **done: int | None) -> Job:
    """The job with these numbers added to its counts."""
    counts = dict(job.counts)
    for name, number in done.items():
        before = counts.get(name, 0)
        counts[name] = None if number is None or before is None else before + number
    return replace(job, counts=counts)
