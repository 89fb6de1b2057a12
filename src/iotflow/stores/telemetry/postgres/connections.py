"""The pool of connections to the telemetry database, and what its errors mean."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import starmap
from typing import Any, TypeAlias, TypeVar

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from iotflow.errors import StoreUnavailableError
from iotflow.stores.breaker import Breaker
from iotflow.stores.calls import Calls
from iotflow.stores.postgres import CONNECT_S, connect_arguments, is_callers_fault, target_of

T = TypeVar("T")
Connection: TypeAlias = "PoolConnectionProxy[Any]"

LARGE_READ_S = 30.0
_READ_S = 5.0
_RELEASE_S = 1.0
_CLOSE_S = 2.0
_SLICE_ROWS = 1_000


class Connections:
    """Connections for `readers` reads at once, and `others` that bound themselves.

    A connection that the server or the network has ended is replaced when it is next needed.
    """

    def __init__(
        self, pool: "asyncpg.Pool[Any]", breaker: Breaker, *, readers: int, in_transactions: bool
    ) -> None:
        self.breaker = breaker
        self._in_transactions = in_transactions
        self._pool = pool
        self._reads = Calls(breaker, size=readers, limit_s=_READ_S)
        self._releases: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, url: str, breaker: Breaker, *, readers: int, others: int) -> "Connections":
        """Connects when a connection is needed, not here."""
        pool = await asyncpg.create_pool(
            **connect_arguments(url),
            min_size=0,
            max_size=readers + others,
            reset=_leave_as_it_is,
        )
        # pgbouncer deals out a server connection for each transaction: outside of any, a statement
        # could be prepared on one and executed on another.
        pgbouncer = target_of(url).pgbouncer
        return cls(pool, breaker, readers=readers, in_transactions=pgbouncer)

    async def close(self) -> None:
        await asyncio.gather(*self._releases)
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    def pool_sizes(self) -> tuple[int, int, int]:
        """How many connections are in use, how many idle, and how many there may be."""
        idle = self._pool.get_idle_size()
        return self._pool.get_size() - idle, idle, self._pool.get_max_size()

    @asynccontextmanager
    async def one(self, limit_s: float) -> AsyncGenerator[Connection]:
        """A connection for at most `limit_s`, its errors translated.

        Raises:
            StoreUnavailableError: the server does not answer.
        """
        async with self.breaker.guarded(limit_s), self._connection() as connection:
            yield connection

    async def rows(
        self,
        sql: str,
        parameters: Sequence[Any],
        convert: Callable[..., T],
        limit_s: float = _READ_S,
    ) -> list[T]:
        """Each row of a SELECT as `convert(*columns)`.

        Raises:
            StoreUnavailableError: the server does not answer.
            OverloadedError: too many reads wait.
        """
        async with self._reads.one(limit_s), self._connection() as connection:
            found = await connection.fetch(sql, *parameters)
        if len(found) <= _SLICE_ROWS:
            return list(starmap(convert, found))
        return await _in_slices(found, convert)

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[Connection]:
        try:
            connection = await self._pool.acquire(timeout=CONNECT_S)
            try:
                if self._in_transactions:
                    async with connection.transaction():
                        yield connection
                else:
                    yield connection
            except BaseException:
                await self._give_back_doubtful(connection)
                raise
            await self._pool.release(connection)
        except asyncpg.ReadOnlySQLTransactionError as error:
            # A primary that lives on as a standby: the next connection looks for the new one.
            await self._pool.expire_connections()
            raise StoreUnavailableError("telemetry") from error
        except Exception as error:
            raise translated(error) from error

    async def _give_back_doubtful(self, connection: Connection) -> None:
        """Give back a connection whose statement may still run.

        The driver asks the server to cancel it, and that is waited for, a short while: until
        then nobody else may use the connection. Also where the caller is cancelled meanwhile.
        """
        release = asyncio.create_task(self._release(connection), name="iotflow-telemetry-release")
        self._releases.add(release)
        release.add_done_callback(self._releases.discard)
        await asyncio.shield(release)

    async def _release(self, connection: Connection) -> None:
        # Where this fails or takes too long, the pool has cut the connection off.
        with suppress(TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await self._pool.release(connection, timeout=_RELEASE_S)


async def _leave_as_it_is(_connection: object) -> None:
    """No session state is ever set, so none has to be reset: a round trip for each call less."""


async def _in_slices(rows: list[Any], convert: Callable[..., T]) -> list[T]:
    """The same, with the event loop let go in between."""
    found: list[T] = []
    for begin in range(0, len(rows), _SLICE_ROWS):
        found += starmap(convert, rows[begin : begin + _SLICE_ROWS])
        await asyncio.sleep(0)
    return found


def translated(error: Exception) -> Exception:
    """What a caller is told: StoreUnavailableError, or ValueError where the values are at fault."""
    if isinstance(error, OSError | EOFError | asyncpg.InternalClientError):  # TimeoutError is one
        return StoreUnavailableError("telemetry")
    if not isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError):
        return error
    if is_callers_fault(error):
        return ValueError("a value that the database cannot hold")
    return StoreUnavailableError("telemetry")
