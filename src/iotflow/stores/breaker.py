"""A circuit breaker: a store that does not answer is not asked by everyone, over and over."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from enum import StrEnum

from iotflow.errors import StoreUnavailableError


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Counts failures in a row; at `threshold` it opens and refuses calls for `open_s`.

    Then it is half open: one call goes through as a probe, and its outcome closes the breaker
    or opens it again. `opened` counts how often it has opened. `on_open` is called each time.
    """

    def __init__(
        self,
        role: str,
        *,
        threshold: int = 5,
        open_s: float = 1.0,
        on_open: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.role = role
        self.opened = 0
        self._threshold = threshold
        self._open_s = open_s
        self._on_open = on_open
        self._monotonic = monotonic
        self._failures = 0
        self._open_until_s = 0.0
        self._probing = False

    @property
    def state(self) -> BreakerState:
        if self._failures < self._threshold:
            return BreakerState.CLOSED
        if self._probing or self._monotonic() >= self._open_until_s:
            return BreakerState.HALF_OPEN
        return BreakerState.OPEN

    def admit(self) -> None:
        """Let a call begin; `succeeded` or `failed` must follow, or `cancelled`.

        Raises:
            StoreUnavailableError: the breaker is open, or a probe is under way.
        """
        if self._failures < self._threshold:
            return
        if self._probing or self._monotonic() < self._open_until_s:
            raise StoreUnavailableError(self.role)
        self._probing = True

    def succeeded(self) -> None:
        """A call was answered."""
        self._failures = 0
        self._probing = False

    def failed(self) -> None:
        """A call was not answered."""
        self._failures += 1
        self._probing = False
        if self._failures >= self._threshold:
            self._open_until_s = self._monotonic() + self._open_s
            if self._failures == self._threshold:
                self.opened += 1
                self._on_open()

    def cancelled(self) -> None:
        """Nobody waits for a call any more: it says nothing about the store."""
        self._probing = False

    @asynccontextmanager
    async def guarded(self, limit_s: float) -> AsyncGenerator[None]:
        """A call within its time limit. StoreUnavailableError, from inside too, is a failure.

        Other errors are answers. Not for calls that must not be cancelled.

        Raises:
            StoreUnavailableError: the breaker is open, the time is over, or the call raised it.
        """
        self.admit()
        try:
            async with asyncio.timeout(limit_s):
                yield
        except TimeoutError as error:
            self.failed()
            raise StoreUnavailableError(self.role) from error
        except StoreUnavailableError:
            self.failed()
            raise
        except asyncio.CancelledError:
            self.cancelled()
            raise
        except BaseException:
            self.succeeded()
            raise
        self.succeeded()
