"""Watches a store: opens it whenever it comes, and knows whether it answers."""

import asyncio
from collections.abc import Coroutine
from time import monotonic

import structlog

from iotflow.errors import IoTFlowError, OverloadedError
from iotflow.pipeline.backoff import idle
from iotflow.stores.breaker import BreakerState
from iotflow.stores.lifecycle import Store

_PING_EVERY_S = 2.0
_LOOKS, _LOOK_S = 40, 0.05
_log = structlog.get_logger(__name__)


class StoreWatch:
    """One store of a runtime. `available` is at most some seconds old."""

    def __init__(self, role: str, store: Store) -> None:
        self.role = role
        self.backend = store.backend
        self.available = False
        self.ping_s: float | None = None
        self.first_attempt = asyncio.Event()
        self.opened = asyncio.Event()
        self._store = store

    @property
    def breaker(self) -> BreakerState:
        return self._store.breaker_state

    async def run(self, stop: asyncio.Event) -> None:
        """Open the store and ping it until `stop`; a supervised worker runs this."""
        while not stop.is_set():
            try:
                self._note(await self._answers())
            finally:
                self.first_attempt.set()
            await idle(stop, _PING_EVERY_S)

    async def _answers(self) -> bool:
        try:
            if not self.opened.is_set():
                await self._store.open()
                self.opened.set()
            began = monotonic()
            await _while_looked_at(self._store.ping())
            self.ping_s = monotonic() - began
            return True
        except OverloadedError:
            return self.available  # it has enough to do: nothing new about the store
        except (IoTFlowError, TimeoutError) as error:
            self.ping_s = None
            if self.available or not self.first_attempt.is_set():
                cause = type(error.__cause__ or error).__name__
                _log.warning("store_unavailable", role=self.role, cause=cause)
            return False

    def _note(self, answers: bool) -> None:
        if answers and not self.available and self.first_attempt.is_set():
            _log.info("store_available", role=self.role, backend=self.backend)
        self.available = answers


async def _while_looked_at(ping: Coroutine[object, object, None]) -> None:
    """Within two seconds, or longer where this process has so much to do that its event loop
    comes round late: that is no fault of the store, and must not take the service out of use.

    Raises:
        TimeoutError: no answer, for as many turns of the loop as fit into two seconds.
    """
    asked = asyncio.create_task(ping, name="store-ping")
    try:
        for _ in range(_LOOKS):
            done, _ = await asyncio.wait((asked,), timeout=_LOOK_S)
            if done:
                return asked.result()
        raise TimeoutError
    finally:
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
