"""Calls to a server: bounded in number, in waiting and in time, behind a breaker."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from iotflow.errors import StoreBusyError, StoreUnavailableError
from iotflow.stores.breaker import Breaker, BreakerState


class Calls:
    """At most `size` calls run at once, each for at most `limit_s`.

    Further ones wait for their turn, `max_waiting` of them, for at most `wait_s`; what comes
    above that raises StoreBusyError and says nothing about the server. So the pool of
    connections behind this, as large as `size`, always has one.
    """

    def __init__(
        self,
        breaker: Breaker,
        *,
        size: int,
        limit_s: float,
        max_waiting: int = 256,
        wait_s: float = 2.0,
    ) -> None:
        self.breaker = breaker
        self._limit_s = limit_s
        self._max_waiting = max_waiting
        self._wait_s = wait_s
        self._waiting = 0
        self._free = asyncio.Semaphore(size)

    @asynccontextmanager
    async def one(self, limit_s: float | None = None) -> AsyncGenerator[None]:
        """One call.

        Raises:
            StoreUnavailableError: the breaker is open, or the call failed or took too long.
            StoreBusyError: too many wait, or this one has waited too long.
        """
        if self.breaker.state is BreakerState.OPEN:
            raise StoreUnavailableError(self.breaker.role)
        await self._turn()
        try:
            async with self.breaker.guarded(self._limit_s if limit_s is None else limit_s):
                yield
        finally:
            self._free.release()

    async def _turn(self) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        if self._waiting >= self._max_waiting:
            raise StoreBusyError(self.breaker.role)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError:
            raise StoreBusyError(self.breaker.role) from None
        finally:
            self._waiting -= 1
