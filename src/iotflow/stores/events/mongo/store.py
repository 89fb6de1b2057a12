"""The events role on MongoDB."""

import asyncio
from collections.abc import Sequence
from typing import Any

from iotflow.domain.events import Event
from iotflow.stores.breaker import BreakerState
from iotflow.stores.events.mongo.documents import date_of, to_document, to_event
from iotflow.stores.events.mongo.driver import Driver
from iotflow.stores.events.mongo.indexes import make_indexes
from iotflow.stores.events.mongo.statistics import statistics
from iotflow.stores.events.protocol import EventQuery
from iotflow.stores.statistics import Statistic

_EVENTS = "events"
_NEWEST_FIRST = (("timestamp", -1), ("_id", -1))
_APPEND_DOCUMENTS = 500
_DELETE_DOCUMENTS = 5_000


class MongoEventStore:
    """Implements `EventStore` (protocol.py) for a `mongodb://` or `mongodb+srv://` URL.

    The URL is MongoDB's own, with all its options; without a database in it, `iotflow` is used.
    The server forgets events `retention_s` after they happened; None keeps them for ever. An
    event that cannot be stored raises ValueError or TypeError, and nothing of its batch is
    stored; only where the server itself refuses one the others may be.
    """

    backend = "mongodb"

    def __init__(self, url: str, *, retention_s: int | None = None) -> None:
        self._driver = Driver("events", url)
        self._retention_s = retention_s

    @property
    def breaker_state(self) -> BreakerState:
        return self._driver.breaker.state

    async def open(self) -> None:
        async with self._driver.opening() as database:
            await make_indexes(database, self._retention_s)

    async def close(self) -> None:
        await self._driver.close()

    async def statistics(self) -> list[Statistic]:
        return await statistics(self._driver)

    async def ping(self) -> None:
        await self._driver.ping()

    async def append(self, events: Sequence[Event]) -> int:
        self._driver.require_open()
        unique: dict[str, Event] = {}
        for event in events:
            unique.setdefault(event.id, event)  # of two with one id the first is kept
        documents = [to_document(event) for event in unique.values()]
        new = 0
        for begin in range(0, len(documents), _APPEND_DOCUMENTS):
            new += await self._driver.insert(_EVENTS, documents[begin : begin + _APPEND_DOCUMENTS])
        return new

    async def query(self, query: EventQuery) -> tuple[list[Event], bool]:
        found = await self._driver.find(_EVENTS, _filter(query), _NEWEST_FIRST, query.limit + 1)
        events = [to_event(document) for document in found[: query.limit]]
        return events, len(found) > query.limit

    async def delete_device(self, device_id: int) -> int:
        return await self._delete({"device_id": device_id})

    async def delete_user(self, user_id: int) -> int:
        return await self._delete({"user_id": user_id})

    async def _delete(self, condition: dict[str, Any]) -> int:
        """In calls of bounded size, so that events are appended in between."""
        deleted, last = 0, _DELETE_DOCUMENTS
        while last == _DELETE_DOCUMENTS:
            last = await self._driver.delete(_EVENTS, condition, _DELETE_DOCUMENTS)
            deleted += last
            await asyncio.sleep(0)
        return deleted


def _filter(query: EventQuery) -> dict[str, Any]:
    end_ms = query.range.end_ms
    found: dict[str, Any] = {
        name: wanted
        for name in ("user_id", "device_id", "event_type")
        if (wanted := getattr(query, name)) is not None
    }
    if query.after is not None:
        at = date_of(query.after.timestamp_ms)
        end_ms = min(end_ms, query.after.timestamp_ms + 1)
        found["$or"] = [
            {"timestamp": {"$lt": at}},
            {"timestamp": at, "_id": {"$lt": query.after.id}},
        ]
    found["timestamp"] = {"$gte": date_of(query.range.start_ms), "$lt": date_of(end_ms)}
    return found
