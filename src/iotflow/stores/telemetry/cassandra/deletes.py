"""Deleting ranges and devices, day by day, with the write mark that orders deletes and writes."""

import asyncio
from collections.abc import Sequence
from typing import Any

from iotflow.domain.times import TimeRange
from iotflow.stores.telemetry.cassandra.driver import Driver
from iotflow.stores.telemetry.cassandra.history import DAYS_A_READ, Reader
from iotflow.stores.telemetry.cassandra.rows import DAY_S, day_of, inclusive, time_bytes
from iotflow.stores.telemetry.cassandra.statements import Statements
from iotflow.stores.telemetry.protocol import Order

# Above every write: a device's id is never given out again.
_EVERY_WRITE_US = 2**63 - 1
_LAST_DAY = 2_932_896  # 9999-12-31
_DAYS_AT_ONCE = 16
# Up to this, a delete also hides points that are on their way into a day that has none yet.
_ALL_DAYS_UP_TO = 400

_DELETE_RANGE = "DELETE FROM {keyspace}.telemetry_by_device USING TIMESTAMP ? WHERE {between}"
_DELETE_DAY = "DELETE FROM {keyspace}.telemetry_by_device USING TIMESTAMP ? WHERE {in_day}"
_DELETE_DAY_ENTRY = "DELETE FROM {keyspace}.days_by_device USING TIMESTAMP ? WHERE {in_day}"
_DELETE_DAYS = "DELETE FROM {keyspace}.days_by_device USING TIMESTAMP ? WHERE device_id = ?"
_DELETE_LATEST = "DELETE FROM {keyspace}.latest_by_device USING TIMESTAMP ? WHERE device_id = ?"


class Deleter:
    """Deletes are idempotent: after an error they may be begun again."""

    def __init__(self, driver: Driver, statements: Statements) -> None:
        self._driver = driver
        self._statements = statements
        self._reader = Reader(driver, statements)

    async def delete_range(self, device_id: int, within: TimeRange, written_us: int) -> None:
        """Hide the points in a range that were written before `written_us`.

        The index stays as it is: it may be too high, and days may be empty.
        """
        first_ms, last_ms = inclusive(within)
        first, last = day_of(first_ms), day_of(last_ms)
        while first <= last and first_ms <= last_ms:
            if last - first < _ALL_DAYS_UP_TO:
                days: Sequence[int] = range(first, last + 1)
                first = last + 1
            else:
                days = await self._reader.days(device_id, first, last, Order.ASC)
                first = days[-1] + 1 if len(days) == DAYS_A_READ else last + 1
            bounds = (time_bytes(first_ms), time_bytes(last_ms))
            await self._each_day(
                _DELETE_RANGE, [(written_us - 1, device_id, day * DAY_S, *bounds) for day in days]
            )

    async def delete_device(self, device_id: int) -> None:
        """Delete a device's points, and then what the indexes say of it."""
        while days := await self._reader.days(device_id, 0, _LAST_DAY, Order.ASC):
            keys = [(_EVERY_WRITE_US, device_id, day * DAY_S) for day in days]
            await self._each_day(_DELETE_DAY, keys)
            await self._each_day(_DELETE_DAY_ENTRY, keys)
        for cql in (_DELETE_DAYS, _DELETE_LATEST):
            prepared = await self._statements.get(cql)
            await self._driver.run(prepared.bind((_EVERY_WRITE_US, device_id)))

    async def _each_day(self, cql: str, parameters: Sequence[tuple[Any, ...]]) -> None:
        prepared = await self._statements.get(cql)
        for begin in range(0, len(parameters), _DAYS_AT_ONCE):
            some = parameters[begin : begin + _DAYS_AT_ONCE]
            await asyncio.gather(*(self._driver.run(prepared.bind(each)) for each in some))
