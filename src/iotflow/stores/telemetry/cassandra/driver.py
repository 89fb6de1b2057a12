"""One connection to the cluster for the life of a store, and what its errors mean."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import acsylla

from iotflow.errors import OverloadedError, StoreUnavailableError
from iotflow.stores.breaker import Breaker
from iotflow.stores.telemetry.cassandra.address import Address
from iotflow.stores.telemetry.cassandra.cluster import create_cluster
from iotflow.stores.telemetry.cassandra.failures import (
    CALLERS_FAULT,
    FAILURES,
    SLOW,
    DriverError,
    TimedOutError,
    translated,
)
from iotflow.stores.telemetry.cassandra.limit import Limit
from iotflow.stores.telemetry.cassandra.tries import SideBySide, within

# The driver's objects carry no types.
Session = Any
Statement = Any
Prepared = Any
Result = Any

SCAN_S = 30.0
"""The limit of a statement that may walk through whole days of points."""

_MAX_RETRIES = 2
_PAUSE_S = 0.05

_acsylla: Any = acsylla


class Driver:
    """Runs statements within limits of time and number.

    At most `max_in_flight` statements are under way and `max_waiting` wait; more raise
    OverloadedError. Each is tried again within `limit_s`, up to three times, so all must be
    idempotent.
    """

    def __init__(
        self,
        address: Address,
        breaker: Breaker,
        *,
        limit_s: float,
        request_timeout_s: float,
        max_in_flight: int,
        max_waiting: int,
        io_threads: int,
        connections_a_host: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.statements = 0
        self._address = address
        self._breaker = breaker
        self._limit_s = limit_s
        self._request_timeout_s = request_timeout_s
        self._request_limit = Limit(request_timeout_s)
        self._max_waiting = max_waiting
        self._waiting = 0
        self._io_threads = io_threads
        self._connections_a_host = connections_a_host
        self._monotonic = monotonic
        self._slots = asyncio.Semaphore(max_in_flight)
        self._side_by_side = SideBySide()
        self._cluster: Any = None
        self._connecting: asyncio.Task[Session] | None = None
        self._session: Session = None

    @property
    def port(self) -> int:
        """Of every node."""
        return self._address.port

    @property
    def waiting(self) -> int:
        """Statements that wait for their turn."""
        return self._waiting

    async def connect(self) -> None:
        """Connect where that was not done. May be tried again, and cancelled.

        Raises:
            StoreUnavailableError: no node answers.
        """
        if self._session is not None:
            return
        if self._cluster is None:
            self._cluster = create_cluster(
                self._address, self._io_threads, self._connections_a_host
            )
        # To cancel it would block the event loop for ever. So it runs to its end, which
        # its time to connect bounds, and whoever comes next takes over.
        if self._connecting is None:
            self._connecting = asyncio.create_task(
                self._cluster.create_session(), name="cassandra-connect"
            )
        connecting = self._connecting
        try:
            self._session = await asyncio.shield(connecting)
        except FAILURES as error:
            raise translated(error) from error
        finally:
            if connecting.done():
                self._connecting = None

    async def close(self) -> None:
        """Close what is open, in the one order that the driver allows."""
        if self._connecting is not None:
            with suppress(DriverError):
                self._session = await asyncio.shield(self._connecting)
            self._connecting = None
        session, cluster = self._session, self._cluster
        self._session = self._cluster = None
        if session is not None:
            await session.close()
        if cluster is not None:
            cluster.destroy()

    async def prepare(self, cql: str) -> Prepared:
        """Raises StoreUnavailableError."""
        self._breaker.admit()
        try:
            prepared = await within(self._limit_s, self._connected.create_prepared(cql))
        except FAILURES as error:
            raise self._noted(error) from error
        except BaseException:
            self._breaker.cancelled()
            raise
        self._breaker.succeeded()
        return prepared

    async def define(self, cql: str) -> Result:
        """Run a statement of the schema, or another without parameters; waits for agreement."""
        statement = _acsylla.create_statement(cql, parameters=0, timeout=SCAN_S)
        try:
            return await within(SCAN_S, self._connected.execute(statement))
        except FAILURES as error:
            raise translated(error) from error

    async def run(self, statement: Statement) -> Result:
        """The result of an idempotent statement.

        Raises:
            StoreUnavailableError: no answer within the limit.
            OverloadedError: too many are under way; it was not begun.
        """
        return await self._run(self._execute, statement)

    async def run_batch(self, batch: Any) -> Result:
        """As `run`."""
        return await self._run(self._execute_batch, batch)

    async def scan(self, statement: Statement) -> list[tuple[Any, ...]]:
        """The rows of an idempotent statement that may take up to SCAN_S.

        It is tried once more where a node failed, but not where it was slow, and slowness is not
        held against the cluster.

        Raises:
            StoreUnavailableError: no answer.
            OverloadedError: too many statements are under way.
        """
        statement.set_is_idempotent(True)
        self._breaker.admit()
        try:
            result = await self._in_turn(self._try_scan, statement)
        except SLOW as error:
            self._breaker.cancelled()
            raise translated(error) from error
        except FAILURES as error:
            raise self._noted(error) from error
        except BaseException:
            self._breaker.cancelled()
            raise
        self._breaker.succeeded()
        return [row.as_tuple() for row in result]

    async def _try_scan(self, statement: Statement) -> Result:
        try:
            return await within(SCAN_S, self._execute(statement))
        except FAILURES as error:
            if isinstance(error, (*SLOW, *CALLERS_FAULT)):
                raise
        await asyncio.sleep(_PAUSE_S)
        return await within(SCAN_S, self._execute(statement))

    async def _in_turn(self, call: Callable[[Any], Any], argument: Any) -> Any:
        await self._enter()
        try:
            return await call(argument)
        finally:
            self._slots.release()

    async def rows(self, statement: Statement) -> list[tuple[Any, ...]]:
        """The rows of an idempotent statement; raises as `run`."""
        return [row.as_tuple() for row in await self._run(self._execute, statement)]

    async def ask(self, statement: Statement, limit_s: float) -> list[tuple[Any, ...]]:
        """The rows of a statement about a single node: tried once within `limit_s`, and neither
        failure nor success is held against the cluster.

        Raises:
            StoreUnavailableError: no answer.
            OverloadedError: too many statements are under way.
        """
        try:
            result = await within(limit_s, self._in_turn(self._execute, statement))
        except FAILURES as error:
            raise translated(error) from error
        return [row.as_tuple() for row in result]

    async def _run(self, execute: Callable[[Any], Any], statement: Any) -> Result:
        statement.set_is_idempotent(True)
        self._breaker.admit()
        try:
            await self._enter()
            try:
                result = await self._request_limit.within(execute(statement))
            except FAILURES as error:
                if isinstance(error, CALLERS_FAULT):
                    raise
                result = await self._run_again(execute, statement, error)
            finally:
                self._slots.release()
        except FAILURES as error:
            raise self._noted(error) from error
        except BaseException:
            self._breaker.cancelled()
            raise
        self._breaker.succeeded()
        return result

    async def _run_again(
        self, execute: Callable[[Any], Any], statement: Any, error: Exception
    ) -> Result:
        # The first try is over; it took its request timeout at most.
        left_s = self._limit_s - self._request_timeout_s
        try:
            async with asyncio.timeout(left_s):
                if isinstance(error, TimedOutError):
                    await asyncio.sleep(_PAUSE_S)
                    return await self._side_by_side.first_answer(
                        lambda: self._request_limit.within(execute(statement))
                    )
                for attempt in range(1, _MAX_RETRIES + 1):
                    await asyncio.sleep(_PAUSE_S * attempt)
                    try:
                        return await self._request_limit.within(execute(statement))
                    except FAILURES as again:
                        if isinstance(again, CALLERS_FAULT):
                            raise
                        error = again
        except TimeoutError:
            pass
        raise error

    def require_room(self) -> None:
        """Raises OverloadedError where a statement would be refused now."""
        if self._slots.locked() and self._waiting >= self._max_waiting:
            raise OverloadedError("telemetry")

    async def _enter(self) -> None:
        """Wait for a turn. An await that need not wait costs no turn of the event loop."""
        if not self._slots.locked():
            await self._slots.acquire()
            return
        self.require_room()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._limit_s):
                await self._slots.acquire()
        except TimeoutError:
            raise OverloadedError("telemetry") from None
        finally:
            self._waiting -= 1

    async def _execute(self, statement: Statement) -> Result:
        self.statements += 1
        return await self._connected.execute(statement)

    async def _execute_batch(self, batch: Any) -> Result:
        self.statements += 1
        return await self._connected.execute_batch(batch)

    @property
    def _connected(self) -> Session:
        if self._session is None:
            raise StoreUnavailableError("telemetry")
        return self._session

    def _noted(self, error: Exception) -> Exception:
        """The error for the caller, after the breaker was told."""
        if isinstance(error, CALLERS_FAULT):
            self._breaker.succeeded()
        else:
            self._breaker.failed()
        return translated(error)
