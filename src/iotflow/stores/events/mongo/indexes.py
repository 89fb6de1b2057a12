"""The indexes of the collections, made when the store opens; several replicas may do so at once."""

from typing import Any

from pymongo import ASCENDING, DESCENDING
from pymongo.errors import OperationFailure

from iotflow.stores.events.mongo.driver import Database

# Every one ends as a page is ordered, so that a page costs what it holds.
_NEWEST_FIRST = [("timestamp", DESCENDING), ("_id", DESCENDING)]
_INDEXES = {
    "events": ("device_id", "event_type", "user_id"),
    "alerts": ("device_id", "alert_type", "user_id"),
}
# A time to live needs an index of the date alone.
_TTL_KEY = [("timestamp", ASCENDING)]
_TTL_NAME = "timestamp_ttl"

_NO_SUCH_COMMAND, _NO_SUCH_INDEX = 59, 27


async def make_indexes(database: Database, retention_s: int | None) -> None:
    """Make what is missing, and let events live as long as the policy says (None: for ever)."""
    for name, fields in _INDEXES.items():
        collection = database[name]
        await collection.create_index(_NEWEST_FIRST)
        for field in fields:
            await collection.create_index([(field, ASCENDING), *_NEWEST_FIRST])
    await _keep_for(database, retention_s)


async def _keep_for(database: Database, retention_s: int | None) -> None:
    held: Any = (await database["events"].index_information()).get(_TTL_NAME)
    held_s = None if held is None else held.get("expireAfterSeconds")
    if held_s == retention_s:
        return
    if held_s is not None and retention_s is not None and await _changed(database, retention_s):
        return
    if held is not None:
        await _drop(database)
    if retention_s is not None:
        await database["events"].create_index(
            _TTL_KEY, name=_TTL_NAME, expireAfterSeconds=retention_s
        )


async def _changed(database: Database, retention_s: int) -> bool:
    """Change the time without building the index anew; False where the server cannot."""
    change = {"name": _TTL_NAME, "expireAfterSeconds": retention_s}
    try:
        await database.command({"collMod": "events", "index": change})
    except OperationFailure as error:
        if error.code != _NO_SUCH_COMMAND:
            raise
        return False
    return True


async def _drop(database: Database) -> None:
    try:
        await database["events"].drop_index(_TTL_NAME)
    except OperationFailure as error:
        if error.code != _NO_SUCH_INDEX:  # another replica was faster
            raise
