"""Prepared statements, each prepared when it is first needed."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

# The driver reads and writes timestamps through floats, which miss a millisecond here and there.
# As an integer they come back exact, and so do the eight bytes that Cassandra keeps go in.
_FRAGMENTS = {
    "time": "blobAsTimestamp(?)",
    "point": (
        "toUnixTimestamp(timestamp), measurement_name, value_type, value, int_value, text_value,"
        " unit"
    ),
    "in_day": "device_id = ? AND day = ?",
    "between": (
        "device_id = ? AND day = ?"
        " AND timestamp >= blobAsTimestamp(?) AND timestamp <= blobAsTimestamp(?)"
    ),
}


class Statements:
    """At most `capacity`; what is asked for beyond that displaces the one that is oldest.

    Statements are written with names in braces for what occurs often: {keyspace}, {time} for a
    parameter that `time_bytes` makes, {point} for the columns that `point_of` takes, {in_day} and
    {between} for conditions.
    """

    def __init__(
        self, keyspace: str, prepare: Callable[[str], Awaitable[Any]], capacity: int = 512
    ) -> None:
        self._fragments = _FRAGMENTS | {"keyspace": keyspace}
        self._prepare = prepare
        self._capacity = capacity
        self._prepared: dict[str, Any] = {}
        self._preparing: dict[str, asyncio.Task[Any]] = {}

    async def get(self, cql: str) -> Any:
        """The prepared statement. Raises StoreUnavailableError."""
        prepared = self._prepared.get(cql)
        if prepared is not None:
            return prepared
        preparing = self._preparing.get(cql)
        if preparing is None:
            # Everybody who needs it waits for one; it ends by itself if none is left.
            preparing = asyncio.create_task(self._make(cql), name="cassandra-prepare")
            self._preparing[cql] = preparing
            preparing.add_done_callback(lambda _: self._preparing.pop(cql))
        return await asyncio.shield(preparing)

    async def _make(self, cql: str) -> Any:
        prepared = await self._prepare(cql.format_map(self._fragments))
        while len(self._prepared) >= self._capacity:
            del self._prepared[next(iter(self._prepared))]
        self._prepared[cql] = prepared
        return prepared
