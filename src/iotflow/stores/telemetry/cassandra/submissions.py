"""Walks over points by the submissions that wrote them, and over the devices that have any."""

from iotflow.stores.telemetry.cassandra.history import DAYS_A_READ, Reader
from iotflow.stores.telemetry.cassandra.rows import DAY_S, day_of, inclusive, time_bytes
from iotflow.stores.telemetry.protocol import (
    DevicePage,
    MarkedPoint,
    MarkPage,
    MarkQuery,
    Order,
    PageKey,
)

_BETWEEN = (
    "SELECT toUnixTimestamp(timestamp), measurement_name, user_id, WRITETIME(user_id)"
    " FROM {keyspace}.telemetry_by_device WHERE {between} LIMIT ?"
)
_AT = (
    "SELECT toUnixTimestamp(timestamp), measurement_name, user_id, WRITETIME(user_id)"
    " FROM {keyspace}.telemetry_by_device"
    " WHERE {in_day} AND timestamp = {time} AND measurement_name > ? LIMIT ?"
)
# In the order of the ring, which is the only one there is. Its first number stands for no token.
_DEVICES = (
    "SELECT DISTINCT device_id, token(device_id) FROM {keyspace}.latest_by_device"
    " WHERE token(device_id) > ? LIMIT ?"
)
_BEFORE_ALL = -(2**63)


async def marks(reader: Reader, query: MarkQuery) -> MarkPage:
    """One page. Days without points cost a small read each."""
    looked_at = await _points(reader, query)
    points = [each for each in looked_at if query.from_us <= each.written_us < query.to_us]
    if len(looked_at) < query.limit:
        return MarkPage(points, None)
    return MarkPage(points, PageKey(looked_at[-1].timestamp_ms, looked_at[-1].measurement))


async def _points(reader: Reader, query: MarkQuery) -> list[MarkedPoint]:
    """The next points, whatever they were written with."""
    first_ms, last_ms = inclusive(query.range)
    found: list[MarkedPoint] = []
    if query.after is not None and first_ms <= query.after.timestamp_ms <= last_ms:
        last_ms = query.after.timestamp_ms
        key = (query.device_id, day_of(last_ms) * DAY_S, time_bytes(last_ms))
        rows = await reader.rows(_AT, (*key, query.after.measurement, query.limit))
        found += [MarkedPoint(*row) for row in rows]
        last_ms -= 1
    first_day, last_day = day_of(first_ms), day_of(last_ms)
    while len(found) < query.limit and last_ms >= first_ms:
        days = await reader.days(query.device_id, first_day, last_day, Order.DESC)
        for day in days:
            key = (query.device_id, day * DAY_S, time_bytes(first_ms), time_bytes(last_ms))
            rows = await reader.rows(_BETWEEN, (*key, query.limit - len(found)))
            found += [MarkedPoint(*row) for row in rows]
            if len(found) >= query.limit:
                break
        if len(days) < DAYS_A_READ:
            break
        last_day = days[-1] - 1
    return found


async def devices(reader: Reader, after: int | None, limit: int) -> DevicePage:
    """One page; `after` is a place on the ring."""
    rows = await reader.scan(_DEVICES, (_BEFORE_ALL if after is None else after, limit))
    ids = [device_id for device_id, _ in rows]
    return DevicePage(ids, rows[-1][1] if len(rows) == limit else None)
