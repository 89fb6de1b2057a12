"""The worker behind deletions: it purges what the other stores hold, until nothing is left.

A job has three passes. The first removes what is there. A submission that was under way when the
device was deleted may be stored after that, so some seconds later the second pass removes what
came late; then the job is done. The third, minutes later, is for events that waited in the queue
of a replica while their store was away. Each pass goes through the devices in order, saves
how far it is, and may be repeated: whoever takes over from a replica that died repeats a little.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import structlog

from iotflow.devices.authentication import KeyAuthenticator
from iotflow.domain.clock import WriteClock
from iotflow.domain.jobs import Job, JobKind, JobStatus
from iotflow.domain.times import TimeRange
from iotflow.errors import IoTFlowError
from iotflow.jobs.service import revoke_keys
from iotflow.pipeline.backoff import Backoff, pause
from iotflow.stores.cache.protocol import CacheStore
from iotflow.stores.events.protocol import EventStore
from iotflow.stores.registry.protocol import Registry
from iotflow.stores.telemetry.protocol import TelemetryStore

_POLL_S = 1.0
_LEASE = timedelta(seconds=20)
_SAVE_AFTER_S, _SAVE_AFTER_DEVICES = 5.0, 50
_SWEEP_AFTER = timedelta(minutes=10)
_KEPT = timedelta(days=30)
_FORGET_EVERY_S = 3_600.0
_LONGEST_DELAY_S = 60
_FIRST = 0

_log = structlog.get_logger(__name__)


class LeaseLostError(Exception):
    """Someone else has taken the job over."""


class JobWorker:
    """Works at one job at a time. Several replicas share the jobs, each held under a lease.

    `settle_s` is how long after a deletion a submission may still be under way; `now` is epoch
    seconds.
    """

    def __init__(
        self,
        registry: Registry,
        telemetry: TelemetryStore,
        cache: CacheStore,
        events: EventStore,
        keys: KeyAuthenticator,
        write_clock: WriteClock,
        *,
        settle_s: float,
        now: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._telemetry = telemetry
        self._cache = cache
        self._events = events
        self._keys = keys
        self._write_clock = write_clock
        self._settle = timedelta(seconds=settle_s)
        self._now_s = now
        self._owner = uuid4().hex
        self._woken = asyncio.Event()
        self._saved_s = 0.0

    def wake(self) -> None:
        """There is a new job: do not wait for the next look."""
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Work at jobs until `stop`; a supervised worker runs this."""
        backoff, forget_at_s = Backoff(cap_s=5.0), 0.0
        while not stop.is_set():
            self._woken.clear()
            try:
                if time.monotonic() >= forget_at_s:
                    await self._registry.forget_jobs(self._now() - _KEPT)
                    forget_at_s = time.monotonic() + _FORGET_EVERY_S
                worked = await self._work_once(stop)
            except IoTFlowError:
                # The registry is away; what it says of the job then, its lease will tell.
                await pause(stop, backoff.next_s())
                continue
            backoff.reset()
            if not worked:
                await self._wait(stop)

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
        job = await self._registry.claim_job(self._owner, now, now + _LEASE)
        if job is None:
            return False
        if job.status is JobStatus.PENDING:
            job = replace(job, status=JobStatus.RUNNING)
        try:
            await self._pass(job, stop)
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

    async def _pass(self, job: Job, stop: asyncio.Event) -> None:
        job = await self._save(job)
        await revoke_keys(self._registry, self._keys, job.id)
        since_saved = 0
        while devices := await self._registry.job_devices(
            job.id, job.after_device_id, _SAVE_AFTER_DEVICES
        ):
            for device_id in devices:
                if stop.is_set():
                    await self._save(job, hold=False)
                    return
                job = await self._purge_device(job, device_id)
                since_saved += 1
                if since_saved >= _SAVE_AFTER_DEVICES or self._is_save_due():
                    job, since_saved = await self._save(job), 0
        if job.kind is JobKind.USER_DELETION:
            removed = await self._events.delete_user(job.subject_id)
            job = _counted(job, events=removed)
        await self._save(self._next_stage(job), hold=False)

    async def _purge_device(self, job: Job, device_id: int) -> Job:
        if job.stage == _FIRST:
            # By write marks, and with its indexes left: what comes late can be found by them.
            points = await self._telemetry.delete_range(
                device_id, TimeRange(-(2**63), 2**63 - 1), self._write_clock.next_us()
            )
        else:
            points = await self._telemetry.delete_device(device_id)
        events = await self._events.delete_device(device_id)
        await self._cache.forget_device(device_id)
        return replace(_counted(job, points=points, events=events), after_device_id=device_id)

    def _next_stage(self, job: Job) -> Job:
        now = self._now()
        job = replace(job, stage=job.stage + 1, after_device_id=0, attempts=0)
        match job.stage:
            case 1:
                return replace(job, due_at=now + self._settle)
            case 2:
                due_at = now + _SWEEP_AFTER
                return replace(job, status=JobStatus.DONE, finished_at=now, due_at=due_at)
            case _:
                return replace(job, due_at=None)

    async def _save(self, job: Job, *, hold: bool = True) -> Job:
        """Keep how far the job is. Raises LeaseLostError."""
        lease_until = self._now() + _LEASE if hold else None
        if not await self._registry.save_job(job, self._owner, lease_until):
            raise LeaseLostError
        self._saved_s = time.monotonic()
        return job

    def _is_save_due(self) -> bool:
        return time.monotonic() - self._saved_s >= _SAVE_AFTER_S

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._now_s(), UTC)


def _counted(job: Job, **removed: int | None) -> Job:
    counts = dict(job.counts)
    for name, number in removed.items():
        before = counts.get(name)
        counts[name] = None if number is None or before is None else before + number
    return replace(job, counts=counts)
