"""Pages of points: walks over the days that a device has, as far as a page needs."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from iotflow.domain.points import Point
from iotflow.domain.times import DAY_MS, TimeRange
from iotflow.stores.telemetry.cassandra.driver import Driver
from iotflow.stores.telemetry.cassandra.rows import (
    DAY_S,
    day_number,
    day_of,
    inclusive,
    point_of,
    time_bytes,
)
from iotflow.stores.telemetry.cassandra.statements import Statements
from iotflow.stores.telemetry.protocol import HistoryQuery, Order, Page, PageKey

DAYS_A_READ = 512
_MAX_DAYS_AT_ONCE = 8
# Where there are points, to try so many days is a statement less than to ask first which hold any.
_TRIED_DAYS = 2

_BETWEEN = {
    Order.DESC: "SELECT {point} FROM {keyspace}.telemetry_by_device WHERE {between} LIMIT ?",
    Order.ASC: (
        "SELECT {point} FROM {keyspace}.telemetry_by_device WHERE {between}"
        " ORDER BY timestamp ASC, measurement_name DESC LIMIT ?"
    ),
}
_BETWEEN_NAMED = {
    Order.DESC: (
        "SELECT {point} FROM {keyspace}.telemetry_by_device WHERE {between}"
        " AND measurement_name IN ? LIMIT ? ALLOW FILTERING"
    ),
    Order.ASC: (
        "SELECT {point} FROM {keyspace}.telemetry_by_device WHERE {between}"
        " AND measurement_name IN ? ORDER BY timestamp ASC, measurement_name DESC"
        " LIMIT ? ALLOW FILTERING"
    ),
}
_AT = (
    "SELECT {point} FROM {keyspace}.telemetry_by_device"
    " WHERE {in_day} AND timestamp = {time} AND measurement_name > ? LIMIT ?"
)
_AT_NAMED = (
    "SELECT {point} FROM {keyspace}.telemetry_by_device"
    " WHERE {in_day} AND timestamp = {time} AND measurement_name IN ? LIMIT ?"
)
_DAYS = {
    Order.DESC: (
        "SELECT day FROM {keyspace}.days_by_device"
        " WHERE device_id = ? AND day >= ? AND day <= ? ORDER BY day DESC LIMIT ?"
    ),
    Order.ASC: (
        "SELECT day FROM {keyspace}.days_by_device"
        " WHERE device_id = ? AND day >= ? AND day <= ? ORDER BY day ASC LIMIT ?"
    ),
}


class Reader:
    """Statements that read points and days."""

    def __init__(self, driver: Driver, statements: Statements) -> None:
        self.driver = driver
        self.statements = statements

    async def rows(self, cql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """The rows of a statement whose work is bounded by its answer."""
        prepared = await self.statements.get(cql)
        return await self.driver.rows(prepared.bind(parameters))

    async def scan(self, cql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """The rows of a statement that may walk through a whole day to find them."""
        prepared = await self.statements.get(cql)
        return await self.driver.scan(prepared.bind(parameters))

    async def days(self, device_id: int, first: int, last: int, order: Order) -> list[int]:
        """Up to DAYS_A_READ days from `first` to `last` that may hold points."""
        if first > last:
            return []
        found = await self.rows(_DAYS[order], (device_id, first * DAY_S, last * DAY_S, DAYS_A_READ))
        return [day_number(row[0]) for row in found]


async def history(reader: Reader, query: HistoryQuery) -> Page[Point]:
    """One page; costs the page, not the range, unless most points are of other measurements."""
    walk = Walk(reader, query.device_id, query.range, query.order, query.measurements, query.after)
    points = await walk.take(query.limit + 1)
    return Page(points[: query.limit], len(points) > query.limit)


class Walk:
    """Gives out the points of a device in a range, in order, as many as are asked for."""

    def __init__(
        self,
        reader: Reader,
        device_id: int,
        within: TimeRange,
        order: Order = Order.DESC,
        names: Sequence[str] = (),
        after: PageKey | None = None,
    ) -> None:
        self.exhausted = False
        self._reader = reader
        self._device_id = device_id
        self._first_ms, self._last_ms = inclusive(within)
        self._descending = order is Order.DESC
        self._order = order
        self._names = sorted(set(names))
        self._after = after
        self._days: deque[int] = deque()
        first_ms, last_ms = self._bounds()
        self._unread_days = (day_of(first_ms), day_of(last_ms))

    async def newest_ms(self) -> int | None:
        """No point left is newer than this; None where none is left. Costs one small read.

        For a walk that descends.
        """
        if self._after is not None and self._after.timestamp_ms <= self._last_ms:
            return self._after.timestamp_ms
        await self._ask_days()
        if not self._days:
            self.exhausted = True
            return None
        return min(self._last_ms, (self._days[0] + 1) * DAY_MS - 1)

    async def take(self, wanted: int) -> list[Point]:
        """The next points. Fewer than `wanted` means that there are no more."""
        points = await self._rest_of_tie(wanted)
        days_read = 0
        while len(points) < wanted:
            await self._next_days()
            if not self._days:
                self.exhausted = True
                break
            missing = wanted - len(points)
            # As many days at once as the ones before let expect that it takes.
            needed = 1 if days_read == 0 else -(-missing * days_read // max(1, len(points)))
            days = list(self._days)[: min(needed, _MAX_DAYS_AT_ONCE)]
            found = await asyncio.gather(*(self._of_day(day, missing) for day in days))
            days_read += len(days)
            self._settle(points, days, found, wanted)
        if points:
            self._after = PageKey(points[-1].timestamp_ms, points[-1].measurement)
        return points

    def _settle(
        self, points: list[Point], days: list[int], found: list[list[Point]], wanted: int
    ) -> None:
        """Take over what was found, and leave the days that may hold more."""
        for of_day in found:
            missing = wanted - len(points)
            points += of_day[:missing]
            if len(of_day) >= missing:
                return  # this day may hold more
            self._days.popleft()

    def _bounds(self) -> tuple[int, int]:
        """The first and last millisecond beyond the point given out last and its equals."""
        if self._after is None:
            return self._first_ms, self._last_ms
        if self._descending:
            return self._first_ms, min(self._last_ms, self._after.timestamp_ms - 1)
        return max(self._first_ms, self._after.timestamp_ms + 1), self._last_ms

    async def _next_days(self) -> None:
        """Have the next days at hand that may hold points, if there are any."""
        first, last = self._unread_days
        if self._days or last - first >= _TRIED_DAYS:
            await self._ask_days()
            return
        days = range(first, last + 1)  # none where all were read
        self._days.extend(reversed(days) if self._descending else days)
        self._unread_days = (0, -1)

    async def _ask_days(self) -> None:
        """As `_next_days`, but those that have held points."""
        first, last = self._unread_days
        if self._days or first > last:
            return
        days = await self._reader.days(self._device_id, first, last, self._order)
        self._days.extend(days)
        if len(days) < DAYS_A_READ:
            self._unread_days = (0, -1)
        elif self._descending:
            self._unread_days = (first, days[-1] - 1)
        else:
            self._unread_days = (days[-1] + 1, last)

    async def _rest_of_tie(self, wanted: int) -> list[Point]:
        """Points of the same time as the one given out last, by measurement."""
        after = self._after
        if after is None or not self._first_ms <= after.timestamp_ms <= self._last_ms:
            return []
        return await self._at(after.timestamp_ms, after.measurement, wanted)

    async def _at(self, timestamp_ms: int, beyond: str, wanted: int) -> list[Point]:
        """Points of one time whose measurement comes after `beyond`."""
        key = (self._device_id, day_of(timestamp_ms) * DAY_S, time_bytes(timestamp_ms))
        if self._names:
            names = [name for name in self._names if name > beyond]
            rows = await self._reader.rows(_AT_NAMED, (*key, names, wanted)) if names else []
        else:
            rows = await self._reader.rows(_AT, (*key, beyond, wanted))
        return [point_of(row) for row in rows]

    async def _of_day(self, day: int, wanted: int) -> list[Point]:
        """The first `wanted` points of a day beyond what was given out."""
        first_ms, last_ms = self._bounds()
        key = (self._device_id, day * DAY_S, time_bytes(first_ms), time_bytes(max(last_ms, 0)))
        if self._names:
            cql = _BETWEEN_NAMED[self._order]
            rows = await self._reader.scan(cql, (*key, self._names, wanted))
        else:
            rows = await self._reader.rows(_BETWEEN[self._order], (*key, wanted))
        points = [point_of(row) for row in rows]
        return points if self._descending else await self._forwards(points, wanted)

    async def _forwards(self, points: list[Point], wanted: int) -> list[Point]:
        """Points that were read backwards through the key, measurements ascending in each time.

        Of the last time the limit may have cut off the measurements that come first.
        """
        if len(points) == wanted:
            cut_ms = points[-1].timestamp_ms
            while points and points[-1].timestamp_ms == cut_ms:
                points.pop()
            tie = await self._at(cut_ms, "", wanted - len(points))
            points.sort(key=_by_time_and_name)
            return points + tie
        points.sort(key=_by_time_and_name)
        return points


def _by_time_and_name(point: Point) -> tuple[int, str]:
    return point.timestamp_ms, point.measurement
