"""Latest values: from the cache where it knows all of them, else from the store."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import structlog

from iotflow.domain.points import LatestPoint
from iotflow.domain.times import format_ms
from iotflow.errors import NotFoundError, StoreUnavailableError
from iotflow.observability.metrics import Metrics
from iotflow.stores.cache.local import SingleFlight
from iotflow.stores.cache.protocol import CacheStore
from iotflow.stores.telemetry.protocol import TelemetryStore

CacheVerdict = Literal["hit", "miss", "stale"]
_log = structlog.get_logger(__name__)


class Latest(NamedTuple):
    """A device's newest points by measurement name, and where they came from.

    `stale` is from the cache while the telemetry store is away: newer points may be nowhere yet.
    """

    points: Sequence[LatestPoint]
    cache: CacheVerdict


class LatestValues:
    """Reads through the cache, filling it. `store_answers` says whether the store lately did."""

    def __init__(
        self,
        store: TelemetryStore,
        cache: CacheStore,
        metrics: Metrics,
        store_answers: Callable[[], bool],
    ) -> None:
        self._store = store
        self._cache = cache
        self._store_answers = store_answers
        self._read_latency = metrics.store("telemetry", "latest")
        self._fills: SingleFlight[int, Sequence[LatestPoint]] = SingleFlight()

    async def of(self, device_id: int) -> Latest:
        """Raises NotFoundError (`no_telemetry`) where a device has sent nothing."""
        try:
            cached = (await self._cache.latest((device_id,))).get(device_id)
        except StoreUnavailableError:
            cached = None
        if cached is None:
            points = await self._fills.run(device_id, lambda: self._fill_one(device_id))
            found = Latest(points, "miss")
        else:
            found = Latest(cached, self._verdict_on_cached())
        if not found.points:
            raise NotFoundError("This device has sent no telemetry.", code="no_telemetry")
        return found

    async def of_many(self, device_ids: Sequence[int]) -> dict[int, Latest]:
        """Every device has an entry, an empty one where it has sent nothing."""
        try:
            cached = await self._cache.latest(device_ids)
        except StoreUnavailableError:
            cached = {}
        missing = [device_id for device_id in device_ids if device_id not in cached]
        filled = await self._fill(missing)
        return {
            device_id: Latest(cached[device_id], self._verdict_on_cached())
            if device_id in cached
            else Latest(filled.get(device_id, ()), "miss")
            for device_id in device_ids
        }

    def _verdict_on_cached(self) -> CacheVerdict:
        return "hit" if self._store_answers() else "stale"

    async def _fill_one(self, device_id: int) -> Sequence[LatestPoint]:
        return (await self._fill((device_id,))).get(device_id, ())

    async def _fill(self, device_ids: Sequence[int]) -> Mapping[int, Sequence[LatestPoint]]:
        if not device_ids:
            return {}
        generations = await self._generations(device_ids)
        with self._read_latency.timed():
            found = await self._store.latest(device_ids)
        for device_id, generation in generations.items():
            try:
                await self._cache.fill_latest(device_id, found.get(device_id, ()), generation)
            except StoreUnavailableError:
                _log.debug("latest_not_filled", device_id=device_id)
        return found

    async def _generations(self, device_ids: Sequence[int]) -> Mapping[int, int]:
        try:
            return await self._cache.begin_fill(device_ids)
        except StoreUnavailableError:
            return {}


def latest_document(device_id: int, points: Sequence[LatestPoint]) -> dict[str, Any]:
    """The answer for one device; `timestamp` is that of its newest point."""
    newest_ms = max((point.timestamp_ms for point in points), default=None)
    return {
        "device_id": device_id,
        "timestamp": None if newest_ms is None else format_ms(newest_ms),
        "data": {point.measurement: point.value for point in points},
        "measurements": {
            point.measurement: {
                "value": point.value,
                "unit": point.unit or None,
                "timestamp": format_ms(point.timestamp_ms),
            }
            for point in points
        },
    }
