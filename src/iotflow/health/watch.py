"""Watches a store: opens it whenever it comes, and knows whether it answers."""

import asyncio
from time import monotonic

import structlog

from iotflow.errors import IoTFlowError
from iotflow.pipeline.backoff import pause
from iotflow.stores.breaker import BreakerState
from iotflow.stores.lifecycle import Store

_PING_EVERY_S = 2.0
_PING_TIMEOUT_S = 2.0
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
            await pause(stop, _PING_EVERY_S)

    async def _answers(self) -> bool:
        try:
            if not self.opened.is_set():
                await self._store.open()
                self.opened.set()
            began = monotonic()
            async with asyncio.timeout(_PING_TIMEOUT_S):
                await self._store.ping()
            self.ping_s = monotonic() - began
            return True
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
