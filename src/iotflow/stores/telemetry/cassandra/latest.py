"""The newest point of every measurement: the index says where to look, the points what it is."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from iotflow.domain.points import LatestPoint
from iotflow.stores.telemetry.cassandra.history import DAYS_A_READ, Reader
from iotflow.stores.telemetry.cassandra.rows import (
    DAY_S,
    Row,
    day_of,
    latest_point_of,
    time_bytes,
)
from iotflow.stores.telemetry.protocol import Order

_DEVICES_AT_ONCE = 64
_NAMES_AT_ONCE = 16
_MAX_DAYS_AT_ONCE = 16
_ROWS_A_NAME = 4  # devices mostly send their measurements together, some more often than others
_MIN_ROWS = 16

_INDEX = (
    "SELECT measurement_name, toUnixTimestamp(timestamp)"
    " FROM {keyspace}.latest_by_device WHERE device_id = ?"
)
_NEWEST = (
    "SELECT {point}, writetime(user_id) FROM {keyspace}.telemetry_by_device"
    " WHERE {in_day} AND timestamp <= {time} LIMIT ?"
)
_NEWEST_AMONG = (
    "SELECT {point}, writetime(user_id) FROM {keyspace}.telemetry_by_device"
    " WHERE {in_day} AND measurement_name IN ? LIMIT ? ALLOW FILTERING"
)

T = TypeVar("T")
R = TypeVar("R")


async def measurements(reader: Reader, device_id: int) -> frozenset[str]:
    """The names that have had points."""
    return frozenset(row[0] for row in await reader.rows(_INDEX, (device_id,)))


async def latest(reader: Reader, device_ids: Sequence[int]) -> dict[int, list[LatestPoint]]:
    """The newest points by device, in order of measurement."""
    wanted = sorted(set(device_ids))
    found = await _each(wanted, _DEVICES_AT_ONCE, lambda device_id: _of_device(reader, device_id))
    return {device_id: points for device_id, points in zip(wanted, found, strict=True) if points}


async def _each(items: Iterable[T], at_once: int, call: Callable[[T], Awaitable[R]]) -> list[R]:
    """What the calls give, so many of them at a time."""
    todo = list(items)
    if len(todo) == 1:
        return [await call(todo[0])]
    found: list[R] = []
    for begin in range(0, len(todo), at_once):
        found += await asyncio.gather(*(call(item) for item in todo[begin : begin + at_once]))
    return found


async def _of_device(reader: Reader, device_id: int) -> list[LatestPoint]:
    bounds: dict[str, int] = dict(await reader.rows(_INDEX, (device_id,)))
    by_day: dict[int, list[str]] = {}
    for name, bound_ms in bounds.items():
        by_day.setdefault(day_of(bound_ms), []).append(name)
    search = _Search(reader, device_id, bounds)
    groups = sorted(by_day.items(), reverse=True)
    found = await _each(groups, _NAMES_AT_ONCE, lambda group: search.in_day(*group))
    rows = {row[1]: row for of_day in found for row in of_day}
    if len(rows) < len(bounds):
        for row in await search.before(bounds.keys() - rows.keys()):
            rows[row[1]] = row
    return [latest_point_of(rows[name]) for name in sorted(rows)]


class _Search:
    """Looks for the newest points of a device's measurements."""

    def __init__(self, reader: Reader, device_id: int, bounds: dict[str, int]) -> None:
        self._reader = reader
        self._device_id = device_id
        self._bounds = bounds

    async def in_day(self, day: int, names: Sequence[str]) -> list[Row]:
        """The newest row of each measurement whose bound lies in the day, if it has one there."""
        limit = _limit(names)
        below = time_bytes(max(self._bounds[name] for name in names))
        rows = await self._reader.rows(_NEWEST, (self._device_id, day * DAY_S, below, limit))
        found = _newest(rows, names)
        if len(found) == len(names) or len(rows) < limit:
            return found
        return found + await self._rare(day, _without(names, found))

    async def before(self, names: Iterable[str]) -> list[Row]:
        """The newest rows of measurements on days before the days of their bounds."""
        missing = set(names)
        found: list[Row] = []
        last = max(day_of(self._bounds[name]) for name in missing) - 1
        while missing:
            days = await self._reader.days(self._device_id, 0, last, Order.DESC)
            at_once, begin = 1, 0
            while missing and begin < len(days):
                found += await self._in_days(days[begin : begin + at_once], missing)
                begin += at_once
                at_once = min(2 * at_once, _MAX_DAYS_AT_ONCE)
            if len(days) < DAYS_A_READ:
                break
            last = days[-1] - 1
        return found

    async def _in_days(self, days: Sequence[int], missing: set[str]) -> list[Row]:
        """The rows of these days, newest first; takes out of `missing` what was found."""

        async def of_day(day: int) -> list[Row]:
            names = [name for name in missing if day < day_of(self._bounds[name])]
            return await self._rare(day, names) if names else []

        found: list[Row] = []
        for rows in await _each(days, len(days), of_day):
            for row in rows:
                if row[1] in missing:
                    missing.discard(row[1])
                    found.append(row)
        return found

    async def _rare(self, day: int, names: Sequence[str]) -> list[Row]:
        """The newest rows in a day of measurements that others may be far more frequent than."""
        key = (self._device_id, day * DAY_S)
        limit = _limit(names)
        rows = await self._reader.scan(_NEWEST_AMONG, (*key, list(names), limit))
        found = _newest(rows, names)
        if len(found) == len(names) or len(rows) < limit:
            return found

        async def of_name(name: str) -> list[Row]:
            return await self._reader.scan(_NEWEST_AMONG, (*key, [name], 1))

        single = await _each(_without(names, found), _NAMES_AT_ONCE, of_name)
        return found + [row for rows in single for row in rows]


def _limit(names: Sequence[str]) -> int:
    return max(_MIN_ROWS, _ROWS_A_NAME * len(names))


def _newest(rows: Iterable[Row], names: Iterable[str]) -> list[Row]:
    """The first row of each measurement that has one."""
    newest: dict[str, Row] = {}
    for row in rows:
        newest.setdefault(row[1], row)
    return [newest[name] for name in names if name in newest]


def _without(names: Iterable[str], found: Iterable[Row]) -> list[str]:
    known = {row[1] for row in found}
    return [name for name in names if name not in known]
