"""Work in the background that leaves most of the time to those who wait for an answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

_LONGEST_REST_S = 2.0


class Pace:
    """Rests after work, so that it takes no more than `share` of the time.

    A rest is short enough for leases and stops: what took very long has waited for a store.
    """

    def __init__(
        self,
        share: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rest = 1 / share - 1
        self._monotonic = monotonic
        self._sleep = sleep
        self._worked_s = 0.0

    @contextmanager
    def working(self) -> Generator[None]:
        """What happens within the block is work."""
        began_s = self._monotonic()
        try:
            yield
        finally:
            self._worked_s += self._monotonic() - began_s

    async def rest(self) -> None:
        """Make up for the work since the last rest."""
        worked_s, self._worked_s = self._worked_s, 0.0
        await self._sleep(min(worked_s * self._rest, _LONGEST_REST_S))
