"""Verification: what the stores say of one another, compared, and on request put right."""

import asyncio
from dataclasses import dataclass, replace
from typing import TypeVar

import msgspec

from iotflow.domain.clock import WriteClock
from iotflow.domain.devices import Device
from iotflow.domain.events import TELEMETRY_SUBMITTED, mark_of
from iotflow.domain.jobs import Job
from iotflow.domain.points import LatestPoint, Submission
from iotflow.domain.times import TimeRange, format_ms, to_ms
from iotflow.errors import StoreUnavailableError
from iotflow.jobs.worker import HeldJob, counted
from iotflow.maintenance.comparing import LatestComparison
from iotflow.maintenance.findings import Fault, clean, noted
from iotflow.maintenance.fleet import device_pages, how_many
from iotflow.maintenance.pace import Pace
from iotflow.maintenance.parameters import ALL_POINTS, VerificationParameters
from iotflow.maintenance.replay import EventWriter, StopNowError, between_pages
from iotflow.maintenance.submissions import MarkRange, StoredSubmission, SubmissionReader
from iotflow.stores.cache.protocol import CacheStore
from iotflow.stores.events.protocol import EventPageKey, EventQuery, EventStore
from iotflow.stores.registry.protocol import Registry
from iotflow.stores.telemetry.protocol import (
    HistoryQuery,
    MarkedPoint,
    TelemetryStore,
)

_EVENTS_A_PAGE = 1_000
_DEVICES_A_PAGE = 200
_DEVICES, _STRANGERS = 1, 2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Looked:
    """The stores that are compared."""

    registry: Registry
    telemetry: TelemetryStore
    cache: CacheStore
    events: EventStore


@dataclass(frozen=True, slots=True)
class _Run:
    """What is verified, for a job that is held."""

    held: HeldJob
    wanted: VerificationParameters
    stop: asyncio.Event

    async def between(self) -> None:
        """To be awaited wherever it may take long. Raises StopNowError and LeaseLostError."""
        await between_pages(self.held, self.stop)


class VerificationWork:
    """Three questions for each device, and one for what the telemetry store has beside them.

    Is what the cache gives as latest what the store gives? Does the store's latest index reach
    the newest point of the range? Has every submission its event? Whose are the points?
    `events_kept_ms` is how long events are kept, None for ever.
    """

    def __init__(
        self,
        looked: Looked,
        write_clock: WriteClock,
        pace: Pace,
        *,
        events_kept_ms: int | None = None,
    ) -> None:
        self._looked = looked
        self._write_clock = write_clock
        self._pace = pace
        self._events_kept_ms = events_kept_ms
        self._comparison = LatestComparison(looked.telemetry, looked.cache, pace)
        self._reader = SubmissionReader(looked.telemetry, pace)
        self._writer = EventWriter(looked.events, looked.registry, pace)

    async def run(self, held: HeldJob, stop: asyncio.Event) -> None:
        """All of it (see JobWork)."""
        wanted = msgspec.convert(held.job.parameters, VerificationParameters)
        await self._looked.events.ping()
        if held.job.stage == 0:
            state = {"total": await how_many(self._looked.registry, wanted.device_ids)}
            await held.save(replace(held.job, stage=_DEVICES, state=state, counts=clean()))
        else:
            await held.save(held.job)
        run = _Run(held, wanted, stop)
        try:
            if held.job.stage == _DEVICES:
                await self._devices(run)
            if wanted.device_ids is None:
                await self._strangers(run)
            await held.finish(held.job)
        except StopNowError:
            await held.save(held.job, hold=False)

    async def _devices(self, run: _Run) -> None:
        job, chosen = run.held.job, run.wanted.device_ids
        async for page in device_pages(self._looked.registry, job.after_device_id, chosen):
            job = await self._cached(run, job, [device.id for device in page])
            for device in page:
                job = await self._device(run, job, device)
        await run.held.save(replace(job, stage=_STRANGERS))

    async def _cached(self, run: _Run, job: Job, device_ids: list[int]) -> Job:
        """The cache's latest values of a page of devices."""
        cached, faults = await self._comparison.faults(device_ids, run.between)
        job = counted(job, cached=cached)
        for device_id, names in faults.items():
            repaired = run.wanted.repair and await self._drop_latest(device_id)
            job = noted(job, Fault.CACHE, device_id, _some(names), repaired=repaired)
            await run.between()
        return job

    async def _drop_latest(self, device_id: int) -> bool:
        """The next reader fills the entry from the store."""
        try:
            await self._looked.cache.drop_latest(device_id, self._write_clock.next_us())
        except StoreUnavailableError:
            return False
        return True

    async def _device(self, run: _Run, job: Job, device: Device) -> Job:
        """A device's points of the range, and the submissions that wrote them."""
        newest: dict[str, MarkedPoint] = {}
        points = TimeRange(run.wanted.from_ms, run.wanted.to_ms)
        # What was written later may still be on its way to the event log.
        from_us: int | None = 0
        end_us = to_ms(job.created_at) * 1000

        def see(point: MarkedPoint) -> None:
            known = newest.get(point.measurement)
            if known is None or point.timestamp_ms > known.timestamp_ms:
                newest[point.measurement] = point

        while from_us is not None:
            written = MarkRange(from_us, end_us)
            found, from_us = await self._reader.read(device.id, points, written, run.between, see)
            number = sum(each.count for each in found)
            job = counted(job, submissions=len(found), points=number)
            job = await self._events(run, job, device.id, found)
        job = await self._index(run, job, device.id, newest)
        job = replace(counted(job, devices=1), after_device_id=device.id)
        return await run.held.save_if_due(job)

    def _remembered(self, run: _Run, found: list[StoredSubmission]) -> list[StoredSubmission]:
        """Those that are not so old that the log has dropped their events."""
        if self._events_kept_ms is None:
            return found
        since_us = (to_ms(run.held.now()) - self._events_kept_ms) * 1000
        return [each for each in found if each.written_us >= since_us]

    async def _events(
        self, run: _Run, job: Job, device_id: int, found: list[StoredSubmission]
    ) -> Job:
        """Events that submissions do not have."""
        found = self._remembered(run, found)
        if not found:
            return job
        known = await self._known_events(run, device_id, found[0].written_us, found[-1].written_us)
        # Asked again: meanwhile the log may have dropped the oldest.
        missing = self._remembered(run, [each for each in found if each.written_us not in known])
        if not missing or await self._looked.registry.being_deleted([device_id]):
            return job
        detail = f"{len(missing)} of {len(found)} submissions, the first of "
        detail += format_ms(missing[0].written_us // 1000)
        if run.wanted.repair:
            await self._append_whole(run, device_id, missing)
        number, repaired = len(missing), run.wanted.repair
        return noted(job, Fault.EVENTS, device_id, detail, number=number, repaired=repaired)

    async def _append_whole(
        self, run: _Run, device_id: int, missing: list[StoredSubmission]
    ) -> None:
        """Read submissions anew, with their points outside of the range, and append their events:
        the log keeps the first that it gets."""
        marks = {each.written_us for each in missing}
        from_us: int | None = missing[0].written_us
        end_us = missing[-1].written_us + 1
        while from_us is not None:
            written = MarkRange(from_us, end_us)
            found, from_us = await self._reader.read(device_id, ALL_POINTS, written, run.between)
            whole = [each for each in found if each.written_us in marks]
            await self._writer.append(device_id, whole, run.between)

    async def _known_events(
        self, run: _Run, device_id: int, first_us: int, last_us: int
    ) -> set[int]:
        """The marks of the submissions whose events are there."""
        within = TimeRange(first_us // 1000, last_us // 1000 + 1)
        known: set[int] = set()
        after: EventPageKey | None = None
        more = True
        while more:
            query = EventQuery(
                within,
                _EVENTS_A_PAGE,
                device_id=device_id,
                event_type=TELEMETRY_SUBMITTED,
                after=after,
            )
            with self._pace.working():
                events, more = await self._looked.events.query(query)
            await self._pace.rest()
            await run.between()
            known.update(mark_of(event.id) for event in events)
            if events:
                after = EventPageKey(events[-1].timestamp_ms, events[-1].id)
        return known

    async def _index(
        self, run: _Run, job: Job, device_id: int, newest: dict[str, MarkedPoint]
    ) -> Job:
        """Measurements whose newest point the store's latest index does not reach."""
        if not newest:
            return job
        stored = (await self._looked.telemetry.latest([device_id])).get(device_id, [])
        latest = {point.measurement: point for point in stored}
        for name, point in newest.items():
            if _reaches(latest.get(name), point):
                continue
            await run.between()
            value = await self._value(device_id, point)
            if value is None:
                continue  # deleted meanwhile
            if run.wanted.repair:
                await self._looked.telemetry.write(value)
                await self._drop_latest(device_id)
            detail = f"{name} of {format_ms(point.timestamp_ms)}"
            job = noted(job, Fault.INDEX, device_id, detail, repaired=run.wanted.repair)
        return job

    async def _value(self, device_id: int, point: MarkedPoint) -> Submission | None:
        """The point again as it was written: to write it once more changes nothing but indexes."""
        at = TimeRange(point.timestamp_ms, point.timestamp_ms + 1)
        query = HistoryQuery(device_id, at, 1, measurements=(point.measurement,))
        found = (await self._looked.telemetry.history(query)).items
        if not found:
            return None
        return Submission(device_id, point.user_id, (found[0],), point.written_us)

    async def _strangers(self, run: _Run) -> None:
        """Devices that have points and are in no registry. Nothing is deleted here: perhaps it is
        the registry that is too old."""
        job = run.held.job
        after: int | None = job.state.get("after")
        while True:
            with self._pace.working():
                page = await self._looked.telemetry.devices(after, _DEVICES_A_PAGE)
                known = await self._looked.registry.known_devices(page.device_ids)
            await self._pace.rest()
            strange = set(page.device_ids) - known
            strange -= await self._looked.registry.being_deleted(strange) if strange else set()
            for device_id in sorted(strange):
                detail = "has points, and the registry does not know it"
                job = noted(job, Fault.DEVICE, device_id, detail, repaired=False)
            after = page.after
            job = await run.held.save_if_due(replace(job, state=job.state | {"after": after}))
            if after is None:
                break
            await run.between()
        await run.held.save(job)


def _reaches(latest: LatestPoint | None, point: MarkedPoint) -> bool:
    return latest is not None and latest.timestamp_ms >= point.timestamp_ms


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
