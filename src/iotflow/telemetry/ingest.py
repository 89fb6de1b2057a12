"""The ingest path: a device's measurements become durable points, and then everything else."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import msgspec
import structlog

from iotflow.domain.clock import DeviceClock, WriteClock
from iotflow.domain.devices import KeyRecord
from iotflow.domain.events import TELEMETRY_SUBMITTED, Event, submission_id
from iotflow.domain.points import Point, Submission
from iotflow.domain.times import DAY_MS
from iotflow.errors import (
    InvalidInputError,
    RateLimitedError,
    StoreUnavailableError,
)
from iotflow.limits.limiter import RateLimiter
from iotflow.observability.metrics import Metrics
from iotflow.settings import IngestSettings
from iotflow.stores.cache.protocol import CacheStore, Hit
from iotflow.stores.telemetry.protocol import TelemetryStore
from iotflow.telemetry.batch import Batch
from iotflow.telemetry.decoding import (
    Reading,
    RefusedRecordError,
    decode_batch,
    decode_submission,
)
from iotflow.telemetry.names import MeasurementNames
from iotflow.telemetry.verdicts import Rejection, in_future, rejection

_FEW_POINTS = 8

_log = structlog.get_logger(__name__)


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """What became of a submission: it is durable. `timestamp_ms` is its newest point's."""

    device_id: int
    timestamp_ms: int
    accepted: int
    rejected: list[Rejection]


class NothingAcceptedError(InvalidInputError):
    """No measurement of a submission could be stored; `rejected` says why, one by one."""

    code = "nothing_accepted"

    def __init__(self, rejected: Sequence[Rejection]) -> None:
        super().__init__("None of the measurements could be stored.")
        self.extra = {"accepted": 0, "rejected": rejected}


class Ingest:
    """`submitted` takes an event and a key's id, without waiting; `now` is epoch seconds."""

    def __init__(
        self,
        store: TelemetryStore,
        cache: CacheStore,
        limiter: RateLimiter,
        names: MeasurementNames,
        metrics: Metrics,
        *,
        settings: IngestSettings,
        write_clock: WriteClock,
        device_clock: DeviceClock,
        submitted: Callable[[Event, int], None],
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._cache = cache
        self._limiter = limiter
        self._names = names
        self._metrics = metrics
        self._write_latency = metrics.store("telemetry", "write")
        self._record_latency = metrics.store("cache", "record")
        self._max_future_ms = settings.max_future_s * 1000
        self._write_clock = write_clock
        self._device_clock = device_clock
        self._submitted = submitted
        self._now = now

    async def submit(self, key: KeyRecord, body: bytes) -> Receipt:
        """Store the measurements of one submission.

        Raises:
            UnreadableBodyError, InvalidInputError: nothing was stored.
            RateLimitedError: nothing was stored.
            StoreUnavailableError, OverloadedError: unknown what was stored; send it again.
        """
        try:
            reading = decode_submission(body)
            self._check_future(reading.timestamp_ms)
        except RefusedRecordError as error:
            error.extra = {"accepted": 0, "rejected": []}
            raise
        hits = self._limiter.admit(key.device_id, (("ingest", 1), ("points", len(reading.points))))
        points, rejected = reading.points, reading.rejected
        names = [point.measurement for point in points]
        if not self._names.are_known(key.device_id, names):
            points, rejected = await self._within_name_limit(key.device_id, reading, names)
            names = [point.measurement for point in points]
        if not points:
            self._metrics.points_rejected += len(rejected)
            raise NothingAcceptedError(rejected)
        if reading.timestamp_ms is None:
            at_ms = self._next_timestamp_ms(key.device_id)
            points = [Point(at_ms, each.measurement, each.value, each.unit) for each in points]
        details: dict[str, Any] = {"measurements": names, "count": len(points)}
        if reading.metadata:
            details["metadata"] = reading.metadata
        await self._write(key, tuple(points), hits, details)
        self._metrics.points_accepted += len(points)
        self._metrics.points_rejected += len(rejected)
        return Receipt(key.device_id, points[0].timestamp_ms, len(points), rejected)

    async def submit_batch(self, key: KeyRecord, body: bytes, *, lines: bool) -> Receipt:
        """Store the records of a batch, together. Raises as `submit` does."""
        hits = self._limiter.admit(key.device_id, (("ingest", 1),))
        batch = Batch(decode_batch(body, lines=lines), self._latest_allowed_ms())
        await self._keep_within_name_limit(key.device_id, batch)
        points, accepted, rejected = batch.points, batch.accepted, batch.rejected
        if not points:
            self._metrics.points_rejected += len(rejected)
            raise NothingAcceptedError(rejected)
        hits += self._limiter.admit(key.device_id, (("points", accepted),))
        await self._write(key, points, hits, batch.details())
        self._metrics.points_accepted += accepted
        self._metrics.points_rejected += len(rejected)
        return Receipt(key.device_id, points[-1].timestamp_ms, accepted, rejected)

    async def _keep_within_name_limit(self, device_id: int, batch: Batch) -> None:
        if not self._names.are_known(device_id, batch.names):
            refused = await self._names.admit(device_id, batch.names)
            if refused:
                batch.refuse(refused, self._too_many_names())

    def _latest_allowed_ms(self) -> int:
        return int(self._now() * 1000) + self._max_future_ms

    def _check_future(self, timestamp_ms: int | None) -> None:
        if timestamp_ms is not None and timestamp_ms > self._latest_allowed_ms():
            raise RefusedRecordError.of_field("timestamp", *in_future(self._max_future_ms))

    def _too_many_names(self) -> str:
        return f"A device has at most {self._names.limit} measurement names."

    def _next_timestamp_ms(self, device_id: int) -> int:
        timestamp_ms = self._device_clock.next_ms(device_id)
        if timestamp_ms is None:
            raise RateLimitedError("device_clock", 1000, 1, 1)
        return timestamp_ms

    async def _within_name_limit(
        self, device_id: int, reading: Reading, names: Sequence[str]
    ) -> tuple[list[Point], list[Rejection]]:
        refused = await self._names.admit(device_id, names)
        if not refused:
            return reading.points, reading.rejected
        message = self._too_many_names()
        rejected = [rejection(name, "too_many_measurements", message) for name in refused]
        kept = [point for point in reading.points if point.measurement not in refused]
        return kept, reading.rejected + rejected

    async def _write(
        self,
        key: KeyRecord,
        points: tuple[Point, ...],
        hits: Sequence[Hit],
        details: dict[str, Any],
    ) -> None:
        device_id, written_us = key.device_id, self._write_clock.next_us()
        submission = Submission(device_id, key.user_id, points, written_us)
        began = perf_counter()
        try:
            await self._store.write(submission)
        except BaseException:
            # Perhaps it was stored after all: what the cache says may be too old from now on.
            await self._distrust(device_id)
            raise
        written = perf_counter()
        self._write_latency.observe(written - began)
        # From here on the points are durable: whatever fails, the answer is 201.
        try:
            newest = submission if len(points) < _FEW_POINTS else _newest(submission)
            counts = await self._cache.record(newest, hits)
            if counts:
                self._limiter.settle(device_id, hits, counts)
            self._record_latency.observe(perf_counter() - written)
        except StoreUnavailableError:
            _log.debug("latest_not_cached", device_id=device_id)
        except Exception:
            _log.exception("latest_not_cached", device_id=device_id)
            await self._distrust(device_id)
        written_ms, first_ms = written_us // 1000, points[0].timestamp_ms
        if first_ms < written_ms - DAY_MS and "first_ms" not in details:
            # Where its event is lost, its points are looked for a day before it and no further.
            details |= {"first_ms": first_ms, "last_ms": first_ms}
        event = Event(
            submission_id(written_us, device_id),
            TELEMETRY_SUBMITTED,
            written_ms,
            key.user_id,
            device_id,
            details,
        )
        try:
            self._submitted(event, key.key_id)
        except Exception:
            _log.exception("submission_not_handed_on", device_id=device_id)

    async def _distrust(self, device_id: int) -> None:
        try:
            await self._cache.drop_latest(device_id, self._write_clock.next_us())
        except Exception:
            _log.warning("latest_not_dropped", device_id=device_id, exc_info=True)


def _newest(submission: Submission) -> Submission:
    """What of a submission a cache of latest values can need: each measurement's newest point.
    Its points are in order of time."""
    newest = {point.measurement: point for point in submission.points}
    return msgspec.structs.replace(submission, points=tuple(newest.values()))
