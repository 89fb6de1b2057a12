"""One connection to a Redis server: redis-py's, with what many callers at once need of it.

redis-py connects, secures, authenticates and selects the database. Its connections answer one
request at a time; here requests are written without waiting, and whatever replies have come
are read at once. The only module that knows the driver's connections.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, cast

import hiredis
from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError

from iotflow.errors import StoreUnavailableError
from iotflow.stores.cache.redis.urls import Address, RedisUrl

Reply = Any
"""Bytes, an integer, None, a list of these, or an error as a value."""

_READ_BYTES = 256 * 1024
_NO_REPLY = object()
DRIVER_ERRORS = (RedisError, OSError, TimeoutError, asyncio.IncompleteReadError)

_pack = cast(Callable[[tuple[Any, ...]], bytes], cast(Any, hiredis).pack_command)


def pack(command: tuple[Any, ...]) -> bytes:
    """A command as Redis reads it, of text, bytes and numbers."""
    return _pack(command)


class _Wire:
    """The two things that redis-py's connections lack."""

    _reader: asyncio.StreamReader | None
    _writer: asyncio.StreamWriter | None
    _parser: Any
    _replies: hiredis.Reader | None = None

    def write(self, data: bytes) -> None:
        """Send without waiting; the caller bounds what may be under way."""
        if self._writer is not None:
            self._writer.write(data)

    async def replies(self) -> list[Reply]:
        """At least one reply, and all others that have come with it.

        Raises:
            redis.exceptions.ConnectionError: the connection has ended.
        """
        if self._replies is None:
            # With "notEnoughData" of its own, as False and None are replies.
            self._replies = hiredis.Reader(
                protocolError=InvalidResponse,
                replyError=self._parser.parse_error,
                notEnoughData=_NO_REPLY,
            )
        found: list[Reply] = []
        while not found:
            data = await self._reader.read(_READ_BYTES) if self._reader is not None else b""
            if not data:
                raise RedisConnectionError("The server has closed the connection.")
            self._replies.feed(data)
            while (reply := self._replies.gets()) is not _NO_REPLY:
                found.append(reply)
        return found

    def abort(self) -> None:
        """End the connection at once; whoever reads it is told."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.transport.abort()


class _PlainWire(_Wire, Connection):
    pass


class _SecureWire(_Wire, SSLConnection):
    pass


Wire = _PlainWire | _SecureWire


Greet = Callable[[Wire], Awaitable[None]]


async def connect(url: RedisUrl, address: Address, limit_s: float, greet: Greet) -> Wire:
    """A connection that has authenticated, and been greeted: what is to happen before it is used.

    Raises:
        StoreUnavailableError: it failed, or took too long.
    """
    host, port = address
    kind = _SecureWire if url.tls else _PlainWire
    wire = kind(
        host=host,
        port=port,
        protocol=2,
        socket_timeout=None,
        socket_connect_timeout=limit_s,
        driver_info=None,
        **url.options,
    )
    try:
        async with asyncio.timeout(limit_s):
            await wire.connect()
            await greet(wire)
    except BaseException as error:
        await end(wire)
        if isinstance(error, DRIVER_ERRORS):
            raise StoreUnavailableError("cache") from error
        raise
    return wire


async def ask(wire: Wire, commands: Sequence[tuple[Any, ...]]) -> list[Reply]:
    """The replies to some commands, on a connection that nobody else uses yet.

    Raises:
        redis.exceptions.RedisError: the first error among the replies.
    """
    wire.write(b"".join(map(pack, commands)))
    replies: list[Reply] = []
    while len(replies) < len(commands):
        replies += await wire.replies()
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


async def end(wire: Wire) -> None:
    """End a connection, which tells whoever reads it."""
    wire.abort()
    with suppress(*DRIVER_ERRORS):
        await wire.disconnect(nowait=True)
