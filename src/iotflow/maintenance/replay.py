"""Replay: the events of submissions that the event log lost are made again from their points."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import msgspec

from iotflow.domain.devices import Device
from iotflow.domain.jobs import Job
from iotflow.jobs.worker import HeldJob, counted
from iotflow.maintenance.fleet import device_pages, how_many
from iotflow.maintenance.pace import Pace
from iotflow.maintenance.parameters import ALL_POINTS, ReplayParameters
from iotflow.maintenance.submissions import Found, MarkRange, StoredSubmission, SubmissionReader
from iotflow.stores.events.protocol import EventStore
from iotflow.stores.registry.protocol import Registry
from iotflow.stores.telemetry.protocol import TelemetryStore

_EVENTS_AT_ONCE = 500


class StopNowError(Exception):
    """The process ends; what was saved is gone on with after its next start."""


async def between_pages(held: HeldJob, stop: asyncio.Event) -> None:
    """What a long walk does every now and then. Raises StopNowError and LeaseLostError."""
    if stop.is_set():
        raise StopNowError
    await held.keep()


class EventWriter:
    """Appends the events of submissions that the log does not have, at the pace of its work."""

    def __init__(self, events: EventStore, registry: Registry, pace: Pace) -> None:
        self._events = events
        self._registry = registry
        self._pace = pace

    async def append(
        self,
        device_id: int,
        submissions: list[StoredSubmission],
        between: Callable[[], Awaitable[None]],
    ) -> int:
        """How many were missing. None is written for a device that is being deleted.

        `between` is awaited after each call.
        """
        new = 0
        for begin in range(0, len(submissions), _EVENTS_AT_ONCE):
            if await self._registry.being_deleted([device_id]):
                return new
            some = submissions[begin : begin + _EVENTS_AT_ONCE]
            with self._pace.working():
                new += await self._events.append([each.event(device_id) for each in some])
            await self._pace.rest()
            await between()
        return new


class ReplayWork:
    """Goes through the devices, and through each device's submissions by their marks."""

    def __init__(
        self, registry: Registry, telemetry: TelemetryStore, events: EventStore, pace: Pace
    ) -> None:
        self._registry = registry
        self._events = events
        self._reader = SubmissionReader(telemetry, pace)
        self._writer = EventWriter(events, registry, pace)

    async def run(self, held: HeldJob, stop: asyncio.Event) -> None:
        """All of it (see JobWork)."""
        wanted = msgspec.convert(held.job.parameters, ReplayParameters)
        # Before anything is begun: as long as the store is away, the job may yet grow.
        await self._events.ping()
        if held.job.stage == 0:
            state = {"total": await how_many(self._registry, wanted.device_ids)}
            counts: dict[str, int | None] = {"devices": 0, "submissions": 0, "events": 0}
            await held.save(replace(held.job, stage=1, state=state, counts=counts))
        else:
            await held.save(held.job)
        try:
            await self._devices(held, wanted, stop)
        except StopNowError:
            await held.save(held.job, hold=False)

    async def _devices(self, held: HeldJob, wanted: ReplayParameters, stop: asyncio.Event) -> None:
        job = held.job
        async for page in device_pages(self._registry, job.after_device_id, wanted.device_ids):
            for device in page:
                job = await self._device(held, job, device, wanted, stop)
        await held.finish(job)

    async def _device(
        self,
        held: HeldJob,
        job: Job,
        device: Device,
        wanted: ReplayParameters,
        stop: asyncio.Event,
    ) -> Job:
        """The rest of a device, saved after each part of it that fits into memory."""
        from_us: int | None = job.state.get("from_us", wanted.from_us)

        async def between() -> None:
            await between_pages(held, stop)

        while from_us is not None:
            written = MarkRange(from_us, wanted.to_us)
            found, from_us = await self._read(device.id, wanted, written, between)
            new = await self._writer.append(device.id, found, between)
            job = counted(job, submissions=len(found), events=new)
            if from_us is not None:
                job = await held.save(replace(job, state=job.state | {"from_us": from_us}))
        state = {"total": job.state.get("total")}
        job = replace(counted(job, devices=1), after_device_id=device.id, state=state)
        return await held.save_if_due(job)

    async def _read(
        self,
        device_id: int,
        wanted: ReplayParameters,
        written: MarkRange,
        between: Callable[[], Awaitable[None]],
    ) -> Found:
        """The log keeps the first event that it gets, so none is made of a part of its points."""
        found = await self._reader.read(device_id, wanted.points, written, between)
        if any(wanted.may_have_more(each) for each in found.submissions):
            found = await self._reader.read(device_id, ALL_POINTS, written, between)
        return found
