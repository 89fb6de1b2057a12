"""Latest values: from the cache where it knows all of them, else from the store."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

import structlog

from iotflow.domain.points import LatestPoint
from iotflow.domain.times import format_ms
from iotflow.errors import NotFoundError, StoreUnavailableError
from iotflow.observability.metrics import Metrics
from iotflow.stores.cache.protocol import CacheStore
from iotflow.stores.telemetry.protocol import TelemetryStore

T = TypeVar("T")
CacheVerdict = Literal["hit", "miss", "stale"]
_log = structlog.get_logger(__name__)


class Latest(NamedTuple):
    """A device's newest points by measurement name, and where they came from.

    `stale` is from the cache while the telemetry store is away: newer points may be nowhere yet.
    """

    points: Sequence[LatestPoint]
    cache: CacheVerdict


_Found = Mapping[int, Sequence[LatestPoint]]


class _Fills:
    """Reads of the store that those share who ask before they begin, and nobody later: so each
    sees whatever was acknowledged, or deleted, before it asked.

    Of a device one read is under way at most, and one waits for its end. So a cache that was
    emptied costs a read or two for each device, not one for each reader.
    """

    def __init__(self, fill: Callable[[Sequence[int]], Coroutine[Any, Any, _Found]]) -> None:
        self._fill = fill
        self._planned: dict[int, asyncio.Task[_Found]] = {}
        self._under_way: dict[int, asyncio.Task[_Found]] = {}

    async def of(self, device_ids: Sequence[int]) -> _Found:
        """What the store has now. A caller that is cancelled ends nobody's read."""
        unplanned = [each for each in dict.fromkeys(device_ids) if each not in self._planned]
        # Apart, so that none waits for another device's read.
        self._plan([each for each in unplanned if each not in self._under_way])
        self._plan([each for each in unplanned if each in self._under_way])
        reads = {self._planned[device_id] for device_id in device_ids}
        found: dict[int, Sequence[LatestPoint]] = {}
        for each in await _all(list(map(asyncio.shield, reads))):
            found.update(each)
        return found

    def _plan(self, device_ids: Sequence[int]) -> None:
        if device_ids:
            read = asyncio.create_task(self._read(device_ids), name="latest-fill")
            self._planned |= dict.fromkeys(device_ids, read)
            read.add_done_callback(partial(self._forget, device_ids))

    async def _read(self, device_ids: Sequence[int]) -> _Found:
        before = {self._under_way[each] for each in device_ids if each in self._under_way}
        if before:
            await asyncio.wait(before)  # however they end
        # From here on it is too late to join.
        for device_id in device_ids:
            self._under_way[device_id] = self._planned.pop(device_id)
        return await self._fill(device_ids)

    def _forget(self, device_ids: Sequence[int], read: asyncio.Task[_Found]) -> None:
        for reads in (self._planned, self._under_way):
            for device_id in device_ids:
                if reads.get(device_id) is read:
                    del reads[device_id]


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
        self._fills = _Fills(self._fill)

    async def of(self, device_id: int) -> Latest:
        """Raises NotFoundError (`no_telemetry`) where a device has sent nothing."""
        try:
            cached = (await self._cache.latest((device_id,))).get(device_id)
        except StoreUnavailableError:
            cached = None
        if cached is None:
            points = (await self._fills.of((device_id,))).get(device_id, ())
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
        filled = await self._fills.of(missing)
        return {
            device_id: Latest(cached[device_id], self._verdict_on_cached())
            if device_id in cached
            else Latest(filled.get(device_id, ()), "miss")
            for device_id in device_ids
        }

    def _verdict_on_cached(self) -> CacheVerdict:
        return "hit" if self._store_answers() else "stale"

    async def _fill(self, device_ids: Sequence[int]) -> _Found:
        generations = await self._generations(device_ids)
        with self._read_latency.timed():
            found = await self._store.latest(device_ids)
        await _all(
            [
                self._fill_cache(device_id, found.get(device_id, ()), generation)
                for device_id, generation in generations.items()
            ]
        )
        return found

    async def _fill_cache(
        self, device_id: int, points: Sequence[LatestPoint], generation: int
    ) -> None:
        try:
            await self._cache.fill_latest(device_id, points, generation)
        except StoreUnavailableError:
            _log.debug("latest_not_filled", device_id=device_id)

    async def _generations(self, device_ids: Sequence[int]) -> Mapping[int, int]:
        try:
            return await self._cache.begin_fill(device_ids)
        except StoreUnavailableError:
            return {}


async def _all(awaitables: Sequence[Awaitable[T]]) -> list[T]:
    """`asyncio.gather`, which makes a task of each, without one for what is alone."""
    if len(awaitables) == 1:
        return [await awaitables[0]]
    return await asyncio.gather(*awaitables)


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
