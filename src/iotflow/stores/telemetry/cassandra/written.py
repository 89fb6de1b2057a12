"""What this process knows to be in the indexes of devices, so that it need not write it again."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from sys import intern

import msgspec

from iotflow.domain.points import Point
from iotflow.domain.times import DAY_MS, MINUTE_MS

BOUND_MS = 10 * MINUTE_MS
"""The index of latest points is this coarse: the bound of a time is the last ms of its slot."""

_REMEMBERED_S = 24 * 3600.0
_MAX_DAYS = 64


class _Device(msgspec.Struct):
    days: dict[int, float]
    bounds: dict[str, int]


class IndexEntries(msgspec.Struct, frozen=True):
    """What must be in the indexes before points are written: days, and bounds by measurement."""

    days: list[int]
    bounds: dict[str, int]


class WrittenIndex:
    """Index entries that were written, by device, up to `capacity` in all.

    What is forgotten is merely written again. A day is forgotten after a day's time, because its
    entry expires when points are kept for a limited time only; bounds never do.
    """

    def __init__(self, capacity: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.size = 0
        self._capacity = capacity
        self._monotonic = monotonic
        self._devices: OrderedDict[int, _Device] = OrderedDict()

    def missing(self, device_id: int, points: Iterable[Point]) -> IndexEntries | None:
        """The entries that these points need and that may not have been written."""
        device = self._devices.get(device_id)
        if device is None:
            return entries_of(points)
        days, bounds, now_s = device.days, device.bounds, self._monotonic()
        for point in points:
            timestamp_ms = point.timestamp_ms
            if (
                bounds.get(point.measurement, -1) < timestamp_ms
                or days.get(timestamp_ms // DAY_MS, now_s) <= now_s
            ):
                return self._missing_of(device, points)
        return None

    def _missing_of(self, device: _Device, points: Iterable[Point]) -> IndexEntries | None:
        now_s = self._monotonic()
        needed = entries_of(points)
        days = [day for day in needed.days if device.days.get(day, now_s) <= now_s]
        known = device.bounds
        bounds = {
            name: bound_ms
            for name, bound_ms in needed.bounds.items()
            if known.get(name, -1) < bound_ms
        }
        return IndexEntries(days, bounds) if days or bounds else None

    def add(self, device_id: int, entries: IndexEntries) -> None:
        """These entries have been written."""
        device = self._devices.pop(device_id, None)
        if device is None:
            device = _Device({}, {})
        else:
            self.size -= len(device.days) + len(device.bounds)
        until_s = self._monotonic() + _REMEMBERED_S
        for day in entries.days:
            device.days.pop(day, None)
            device.days[day] = until_s
        while len(device.days) > _MAX_DAYS:
            del device.days[next(iter(device.days))]
        for name, bound_ms in entries.bounds.items():
            if device.bounds.get(name, -1) < bound_ms:
                device.bounds[intern(name)] = bound_ms
        self._devices[device_id] = device
        self.size += len(device.days) + len(device.bounds)
        while self.size > self._capacity and self._devices:
            _, forgotten = self._devices.popitem(last=False)
            self.size -= len(forgotten.days) + len(forgotten.bounds)

    def forget(self, device_id: int) -> None:
        device = self._devices.pop(device_id, None)
        if device is not None:
            self.size -= len(device.days) + len(device.bounds)


def entries_of(points: Iterable[Point]) -> IndexEntries:
    """All the entries that points need."""
    newest: dict[str, int] = {}
    days: set[int] = set()
    for point in points:
        timestamp_ms = point.timestamp_ms
        days.add(timestamp_ms // DAY_MS)
        if newest.get(point.measurement, -1) < timestamp_ms:
            newest[point.measurement] = timestamp_ms
    return IndexEntries(sorted(days), _bounds(newest))


def _bounds(newest: Mapping[str, int]) -> dict[str, int]:
    return {
        name: timestamp_ms - timestamp_ms % BOUND_MS + BOUND_MS - 1
        for name, timestamp_ms in newest.items()
    }
