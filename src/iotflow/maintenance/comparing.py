"""Compares what the cache and the store say of the latest values, while devices go on sending."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from iotflow.domain.points import LatestPoint
from iotflow.errors import StoreUnavailableError
from iotflow.maintenance.pace import Pace
from iotflow.stores.cache.protocol import CacheStore
from iotflow.stores.telemetry.protocol import TelemetryStore

_LOOKS = 3
_BETWEEN_LOOKS_S = 0.3

_Entry = tuple[int, str, str, str]
_Differing = dict[int, dict[str, _Entry | None]]


class LatestComparison:
    """A submission is in the store before it is in the cache, so for a moment they differ.

    What differs is looked at again: it counts only where the cache says the same all the time.
    """

    def __init__(
        self,
        telemetry: TelemetryStore,
        cache: CacheStore,
        pace: Pace,
        *,
        between_looks_s: float = _BETWEEN_LOOKS_S,
    ) -> None:
        self._telemetry = telemetry
        self._cache = cache
        self._pace = pace
        self._between_looks_s = between_looks_s

    async def faults(
        self, device_ids: Sequence[int], between: Callable[[], Awaitable[None]]
    ) -> tuple[int, dict[int, list[str]]]:
        """How many devices the cache knew, and the measurements in which it is wrong, by device.

        A cache that is away knows none. `between` is awaited after each look.
        """
        differing: _Differing
        cached, differing = await self._look_at_pace(device_ids)
        await between()
        for _ in range(_LOOKS - 1):
            if not differing:
                break
            await asyncio.sleep(self._between_looks_s)
            _, again = await self._look_at_pace(list(differing))
            await between()
            differing = {
                device_id: same
                for device_id, before in differing.items()
                if (same := _unchanged(before, again.get(device_id, {})))
            }
        return cached, {device_id: sorted(names) for device_id, names in differing.items()}

    async def _look_at_pace(self, device_ids: Sequence[int]) -> tuple[int, _Differing]:
        with self._pace.working():
            looked = await self._look(device_ids)
        await self._pace.rest()
        return looked

    async def _look(self, device_ids: Sequence[int]) -> tuple[int, _Differing]:
        """What the cache says where the store says something else, by device and measurement."""
        cached: Mapping[int, Sequence[LatestPoint]]
        try:
            cached = await self._cache.latest(device_ids)
        except StoreUnavailableError:
            return 0, {}
        stored: Mapping[int, Sequence[LatestPoint]]
        stored = await self._telemetry.latest(list(cached))
        return len(cached), {
            device_id: different
            for device_id, points in cached.items()
            if (different := _difference(_entries(points), _entries(stored.get(device_id, ()))))
        }


def _entries(points: Sequence[LatestPoint]) -> dict[str, _Entry]:
    # Types are told apart, and so are 0.0 and -0.0.
    return {
        point.measurement: (
            point.timestamp_ms,
            type(point.value).__name__,
            repr(point.value),
            point.unit,
        )
        for point in points
    }


def _difference(
    cached: Mapping[str, _Entry], stored: Mapping[str, _Entry]
) -> dict[str, _Entry | None]:
    names = cached.keys() | stored.keys()
    return {name: cached.get(name) for name in names if cached.get(name) != stored.get(name)}


def _unchanged(
    before: Mapping[str, _Entry | None], after: Mapping[str, _Entry | None]
) -> dict[str, _Entry | None]:
    return {name: entry for name, entry in before.items() if name in after and after[name] == entry}
