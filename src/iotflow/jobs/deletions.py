"""Deletions: what the other stores hold of a device or a user is purged, until nothing is left.

A job has three passes. The first removes what is there. A submission that was under way when the
device was deleted may be stored after that, so some seconds later the second pass removes what
came late; then the job is done. The third, minutes later, is for events that waited in the queue
of a replica while their store was away. Each pass goes through the devices in order, saves
how far it is, and may be repeated: whoever takes over from a replica that died repeats a little.
"""

import asyncio
from dataclasses import replace
from datetime import timedelta

from iotflow.devices.authentication import KeyAuthenticator
from iotflow.domain.clock import WriteClock
from iotflow.domain.jobs import Job, JobKind, JobStatus
from iotflow.domain.times import TimeRange
from iotflow.jobs.service import revoke_keys
from iotflow.jobs.worker import HeldJob, counted
from iotflow.stores.cache.protocol import CacheStore
from iotflow.stores.events.protocol import EventStore
from iotflow.stores.registry.protocol import Registry
from iotflow.stores.telemetry.protocol import TelemetryStore

_SAVE_AFTER_DEVICES = 50
_SWEEP_AFTER = timedelta(minutes=10)
_FIRST = 0


class DeletionWork:
    """`settle_s` is how long after a deletion a submission may still be under way."""

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
    ) -> None:
        self._registry = registry
        self._telemetry = telemetry
        self._cache = cache
        self._events = events
        self._keys = keys
        self._write_clock = write_clock
        self._settle = timedelta(seconds=settle_s)

    async def run(self, held: HeldJob, stop: asyncio.Event) -> None:
        """One pass (see JobWork)."""
        job = await held.save(held.job)
        await held.keep_during(revoke_keys(self._registry, self._keys, job.id))
        since_saved = 0
        while devices := await self._registry.job_devices(
            job.id, job.after_device_id, _SAVE_AFTER_DEVICES
        ):
            for device_id in devices:
                if stop.is_set():
                    await held.save(job, hold=False)
                    return
                job = await held.keep_during(self._purge_device(job, device_id))
                since_saved += 1
                if since_saved >= _SAVE_AFTER_DEVICES or held.is_save_due():
                    job, since_saved = await held.save(job), 0
        if job.kind is JobKind.USER_DELETION:
            removed = await held.keep_during(self._events.delete_user(job.subject_id))
            job = counted(job, events=removed)
        await held.save(self._next_stage(job, held), hold=False)

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
        return replace(counted(job, points=points, events=events), after_device_id=device_id)

    def _next_stage(self, job: Job, held: HeldJob) -> Job:
        now = held.now()
        job = replace(job, stage=job.stage + 1, after_device_id=0, attempts=0)
        match job.stage:
            case 1:
                return replace(job, due_at=now + self._settle)
            case 2:
                due_at = now + _SWEEP_AFTER
                return replace(job, status=JobStatus.DONE, finished_at=now, due_at=due_at)
            case _:
                return replace(job, due_at=None)
