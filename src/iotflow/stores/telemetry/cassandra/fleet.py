"""Pages of points across devices: a merge that reads of each device what the page needs."""

import asyncio
from collections.abc import Sequence
from heapq import heapify, heappop, heappush

from iotflow.domain.points import DevicePoint, Point
from iotflow.domain.times import TimeRange
from iotflow.stores.telemetry.cassandra.history import Reader, Walk
from iotflow.stores.telemetry.cassandra.rows import day_of
from iotflow.stores.telemetry.protocol import (
    FleetHistoryQuery,
    FleetPageKey,
    Order,
    Page,
    PageKey,
)

_DEVICES_AT_ONCE = 64
_FIRST_POINTS = 8
_UNREAD = -1  # before every device: what is not read yet may hold the next point


class _Stream:
    """A device's points, newest first, some of them read ahead."""

    def __init__(self, device_id: int, walk: Walk, points_at_once: int) -> None:
        self.device_id = device_id
        self.walk = walk
        self.points: list[Point] = []
        self.position = 0
        self._points_at_once = points_at_once

    async def read(self) -> None:
        self.points = await self.walk.take(self._points_at_once)
        self.position = 0
        self._points_at_once *= 2


_Entry = tuple[int, int, str, int, _Stream]
"""Negative time, device, measurement, and the stream that has this point next. No two are equal
before the stream, which cannot be compared: the fourth is the device again."""


async def fleet_history(reader: Reader, query: FleetHistoryQuery) -> Page[DevicePoint]:
    """One page across devices."""
    device_ids = sorted(set(query.device_ids))
    wanted = query.limit + 1
    at_once = min(wanted, max(_FIRST_POINTS, 2 * wanted // max(1, len(device_ids))))
    streams = [
        _Stream(device_id, _walk(reader, device_id, query.range, query.after), at_once)
        for device_id in device_ids
    ]
    heap = await _unread(streams)
    heapify(heap)
    found: list[DevicePoint] = []
    while heap and len(found) < wanted:
        if heap[0][1] == _UNREAD:
            await _read_ahead(heap)
            continue
        stream = heappop(heap)[-1]
        found.append(DevicePoint(stream.device_id, stream.points[stream.position]))
        stream.position += 1
        _push(heap, stream)
    return Page(found[: query.limit], len(found) > query.limit)


def _walk(reader: Reader, device_id: int, within: TimeRange, after: FleetPageKey | None) -> Walk:
    """A device's points in the range, from the page's key on."""
    if after is None:
        return Walk(reader, device_id, within)
    if device_id == after.device_id:
        key = PageKey(after.timestamp_ms, after.measurement)
        return Walk(reader, device_id, within, Order.DESC, (), key)
    end_ms = after.timestamp_ms + (device_id > after.device_id)
    return Walk(reader, device_id, TimeRange(within.start_ms, min(within.end_ms, end_ms)))


async def _unread(streams: Sequence[_Stream]) -> list[_Entry]:
    entries: list[_Entry] = []
    for begin in range(0, len(streams), _DEVICES_AT_ONCE):
        some = streams[begin : begin + _DEVICES_AT_ONCE]
        newest = await asyncio.gather(*(stream.walk.newest_ms() for stream in some))
        for stream, newest_ms in zip(some, newest, strict=True):
            if newest_ms is not None:
                entries.append((-newest_ms, _UNREAD, "", stream.device_id, stream))
    return entries


async def _read_ahead(heap: list[_Entry]) -> None:
    """Read the stream that may hold the next point, and others that reach into its day."""
    day = day_of(-heap[0][0])
    streams: list[_Stream] = []
    while (
        heap
        and heap[0][1] == _UNREAD
        and day_of(-heap[0][0]) == day
        and len(streams) < _DEVICES_AT_ONCE
    ):
        streams.append(heappop(heap)[-1])
    await asyncio.gather(*(stream.read() for stream in streams))
    for stream in streams:
        _push(heap, stream)


def _push(heap: list[_Entry], stream: _Stream) -> None:
    """Put a stream back for its next point, read or not."""
    device_id = stream.device_id
    if stream.position < len(stream.points):
        point = stream.points[stream.position]
        heappush(heap, (-point.timestamp_ms, device_id, point.measurement, device_id, stream))
    elif not stream.walk.exhausted:
        last = stream.points[-1]
        heappush(heap, (-last.timestamp_ms, _UNREAD, "", device_id, stream))
