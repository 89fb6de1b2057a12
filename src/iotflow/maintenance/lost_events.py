"""What the event log lost is noted in the registry, as a job that makes it again."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import structlog
from prometheus_client.core import CounterMetricFamily, Metric

from iotflow.domain.events import TELEMETRY_SUBMITTED, Event, mark_of
from iotflow.domain.jobs import NOBODY, JobKind
from iotflow.domain.times import DAY_MS, format_ms
from iotflow.errors import IoTFlowError
from iotflow.maintenance.parameters import ReplayParameters, as_json
from iotflow.observability.metrics import labelled
from iotflow.pipeline.backoff import idle
from iotflow.stores.registry.protocol import NewJob, Registry

_MAX_DEVICES = 1_000
_LOOK_EVERY_S = 1.0
_LAST_S = 2.0

_log = structlog.get_logger(__name__)


class LostEvents:
    """Notes events that were lost, without waiting, and keeps soon which they were.

    A job that was not begun yet grows with what is lost meanwhile; it begins `settle_s` after
    the last of it, and waits for the event store as all jobs do. Of a submission without a range
    in its details, points up to a day older are found. `max_future_s` is how far ahead of the
    clock points may lie; `wake` tells the worker of a new job; `now` is epoch seconds.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        settle_s: float,
        max_future_s: int,
        wake: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self.replayable = 0
        self.irreplaceable = 0
        self._registry = registry
        self._settle = timedelta(seconds=settle_s)
        self._max_future_ms = max_future_s * 1000
        self._wake = wake
        self._now_s = now
        self._noted: ReplayParameters | None = None
        self._devices: set[int] | None = set()
        self._kept: tuple[int, ReplayParameters] | None = None

    def note(self, event: Event) -> None:
        """An event is lost. Sign-ins and the like are nowhere else: those are counted alone."""
        if event.event_type != TELEMETRY_SUBMITTED or event.device_id is None:
            self.irreplaceable += 1
            return
        self.replayable += 1
        self._note_device(event.device_id)
        written_us, details = mark_of(event.id), event.details
        first_ms = details.get("first_ms", event.timestamp_ms - DAY_MS)
        last_ms = details.get("last_ms", event.timestamp_ms + self._max_future_ms)
        held = self._noted
        # This may run for every submission: no more than four comparisons.
        self._noted = ReplayParameters(
            written_us if held is None else min(held.from_us, written_us),
            written_us + 1 if held is None else max(held.to_us, written_us + 1),
            max(0, first_ms if held is None else min(held.points_from_ms, first_ms)),
            last_ms + 1 if held is None else max(held.points_to_ms, last_ms + 1),
            automatic=True,
        )

    def _note_device(self, device_id: int) -> None:
        if self._devices is not None:
            self._devices.add(device_id)
            if len(self._devices) > _MAX_DEVICES:
                self._devices = None

    async def run(self, stop: asyncio.Event) -> None:
        """Keep what is noted, until `stop`; a supervised worker runs this."""
        while not stop.is_set():
            await self.keep()
            await idle(stop, _LOOK_EVERY_S)

    async def keep(self) -> None:
        """Keep what was noted since the last time. Where the registry is away it stays noted."""
        noted, devices = self._noted, self._devices
        if noted is None:
            return
        self._noted, self._devices = None, set()
        ids = None if devices is None else sorted(devices)
        wanted = ReplayParameters(
            noted.from_us, noted.to_us, noted.points_from_ms, noted.points_to_ms, ids, True
        )
        try:
            await self._keep(wanted)
        except BaseException as error:
            self._put_back(wanted)
            if not isinstance(error, IoTFlowError):
                raise

    async def _keep(self, wanted: ReplayParameters) -> None:
        now = datetime.fromtimestamp(self._now_s(), UTC)
        due_at = now + self._settle
        if self._kept is not None:
            job_id, kept = self._kept
            grown = kept.merged(wanted, _MAX_DEVICES)
            if await self._registry.amend_job(job_id, as_json(grown), due_at, now):
                self._kept = (job_id, grown)
                return
        new = NewJob(JobKind.EVENT_REPLAY, NOBODY, 0, as_json(wanted), due_at)
        job = await self._registry.add_job(new, now)
        self._kept = (job.id, wanted)
        self._wake()
        _log.warning("lost_events_noted", job_id=job.id, events=self.replayable)

    def _put_back(self, wanted: ReplayParameters) -> None:
        noted = self._noted
        self._noted = wanted if noted is None else wanted.merged(noted, 0)
        if wanted.device_ids is None:
            self._devices = None
        for device_id in wanted.device_ids or ():
            self._note_device(device_id)

    async def keep_last(self) -> None:
        """Keep what was lost at the end, within a bound; else say what has to be replayed."""
        try:
            async with asyncio.timeout(_LAST_S):
                await self.keep()
        except TimeoutError:
            pass
        if self._noted is not None:
            start = format_ms(self._noted.from_us // 1000)
            end = format_ms(self._noted.to_us // 1000 + 1)
            _log.error(
                "lost_events_not_noted", replay=f"iotflow events replay --from {start} --to {end}"
            )

    def metrics(self) -> Iterator[Metric]:
        yield labelled(
            CounterMetricFamily,
            "iotflow_events_lost",
            "Events that were dropped; a replay makes those of submissions again",
            "replayable",
            [("yes", float(self.replayable)), ("no", float(self.irreplaceable))],
        )
