"""The driver, behind one file: connecting, calls with their limits, and what errors mean.

Motor runs PyMongo in a few threads. With a server that is away its calls would fill them for
their whole time-outs; so these are short, few calls run at once, and a breaker stands in front.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import parse_qsl

from bson.raw_bson import RawBSONDocument
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)
from pymongo.uri_parser import parse_uri

from iotflow import errors
from iotflow.errors import StoreUnavailableError
from iotflow.stores.breaker import Breaker
from iotflow.stores.calls import Calls
from iotflow.stores.events.mongo.documents import CODEC
from iotflow.stores.urls import split_url

Database = AsyncIOMotorDatabase[dict[str, Any]]
Collection = AsyncIOMotorCollection[dict[str, Any]]
Keys = Sequence[tuple[str, int]]

_DATABASE = "iotflow"
_CALLS_AT_ONCE = 4
_CALL_S = 6.0
_CLOSE_S = 2.0
# What the URL does not say. No `timeoutMS`: with it a server that is away is waited for as long
# as for one that is slow.
_OPTIONS: Mapping[str, Any] = {
    "appName": "iotflow",
    "connectTimeoutMS": 1_000,
    "maxPoolSize": _CALLS_AT_ONCE,
    "serverSelectionTimeoutMS": 1_000,
    "socketTimeoutMS": 4_000,
    "uuidRepresentation": "standard",
    "w": "majority",
    "waitQueueTimeoutMS": 1_000,
}
_DUPLICATE_KEY = 11_000
# The server's judgement of a document: BadValue, TypeMismatch, InvalidBSON, NotSingleValueField,
# DollarPrefixedFieldName, EmptyFieldName, DottedFieldName, DocumentValidationFailure, too large.
_DOCUMENTS_FAULT = frozenset({2, 14, 22, 52, 56, 57, 121, 10_334, 17_280})


class Driver:
    """A client's database once it is open. Every call raises StoreUnavailableError until then."""

    def __init__(self, role: str, url: str) -> None:
        self.breaker = Breaker(role)
        self._role = role
        self._url = url
        self._calls = Calls(self.breaker, size=_CALLS_AT_ONCE, limit_s=_CALL_S)
        if not url.startswith("mongodb+srv:"):  # what that stands for is asked when it is opened
            _check(url)
        self._client: AsyncIOMotorClient[dict[str, Any]] | None = None
        self._is_open = False

    @asynccontextmanager
    async def opening(self) -> AsyncGenerator[Database]:
        """The database while its indexes are made; the driver is open after that."""
        try:
            client = self._client = self._client or _connect(self._url)
            yield client.get_default_database(_DATABASE)
        except PyMongoError as error:
            await self.close()
            raise StoreUnavailableError(self._role) from error
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False
        client, self._client = self._client, None
        if client is not None:
            # It says good-bye to the server, and waits for an answer.
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await asyncio.to_thread(client.close)

    def require_open(self) -> "AsyncIOMotorClient[dict[str, Any]]":
        """Raises StoreUnavailableError until the driver is open."""
        if self._client is None or not self._is_open:
            raise StoreUnavailableError(self._role)
        return self._client

    async def ping(self) -> None:
        async with self._database() as database:
            await database.command("ping")

    async def told(
        self, command: dict[str, Any], *, database: str | None = None
    ) -> Mapping[str, Any]:
        """The answer to a command that only asks; empty where the server does not know the
        command, or does not allow it. Of the events' database if no other is named."""
        async with self._database() as found:
            asked: Any = found if database is None else found.client.get_database(database)
            try:
                told: Mapping[str, Any] = await asked.command(command)
                return told
            except OperationFailure:
                return {}

    async def insert(self, collection: str, documents: Sequence[RawBSONDocument]) -> int:
        """Insert what is not there yet; returns how many that were.

        Raises:
            ValueError: the server refuses one of the documents; the others are stored.
        """
        async with self._collection(collection) as found:
            try:
                await found.insert_many(documents, ordered=False)
            except BulkWriteError as error:
                known = _count_known(error)
                return len(documents) - known
        return len(documents)

    async def find(
        self, collection: str, query: Mapping[str, Any], order: Keys, limit: int
    ) -> list[dict[str, Any]]:
        async with self._collection(collection) as found:
            return await found.find(query).sort(list(order)).to_list(limit)

    async def delete(self, collection: str, query: Mapping[str, Any], limit: int) -> int:
        """Delete at most about `limit` documents; returns how many were found."""
        async with self._collection(collection) as found:
            ids = [each["_id"] for each in await found.find(query, {"_id": 1}).to_list(limit)]
        async with self._collection(collection) as found:
            await found.delete_many({"_id": {"$in": ids}})
        return len(ids)

    @asynccontextmanager
    async def _collection(self, name: str) -> AsyncGenerator[Collection]:
        async with self._database() as database:
            yield database.get_collection(name, codec_options=CODEC)

    @asynccontextmanager
    async def _database(self) -> AsyncGenerator[Database]:
        client = self.require_open()
        async with self._calls.one():
            try:
                yield client.get_default_database(_DATABASE)
            except PyMongoError as error:
                raise StoreUnavailableError(self._role) from error


def _check(url: str) -> None:
    try:
        parse_uri(url)
    except (PyMongoError, ValueError) as error:
        raise errors.ConfigurationError("It cannot be read as a mongodb:// URL.") from error


def _connect(url: str) -> "AsyncIOMotorClient[dict[str, Any]]":
    given = {name.lower() for name, _ in parse_qsl(split_url(url).query)}
    options = {name: value for name, value in _OPTIONS.items() if name.lower() not in given}
    try:
        return AsyncIOMotorClient(url, **options)
    except (InvalidURI, ConfigurationError, ValueError) as error:
        raise errors.ConfigurationError("It cannot be read as a mongodb:// URL.") from error


def _count_known(error: BulkWriteError) -> int:
    """How many of a bulk were there before. Raises for any other reason, ValueError or itself."""
    details: Any = error.details
    codes = [each["code"] for each in details["writeErrors"]]
    if details.get("writeConcernErrors") or not _DOCUMENTS_FAULT.issuperset(
        code for code in codes if code != _DUPLICATE_KEY
    ):
        raise error
    if any(code != _DUPLICATE_KEY for code in codes):
        raise ValueError("an event that the server refuses") from error
    return len(codes)
