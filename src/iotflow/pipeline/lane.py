"""The lease on this process's lane: its share of all timestamps and write marks."""

import asyncio
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import structlog

from iotflow.domain.clock import Lane
from iotflow.errors import StoreUnavailableError
from iotflow.pipeline.backoff import pause
from iotflow.stores.registry.protocol import Registry

_LEASE = timedelta(seconds=30)
_RENEW_S = 5.0
_RETRY_S = 0.5
# A lease is given up this long before another process may take it.
_MARGIN_S = 2.0

_log = structlog.get_logger(__name__)


class LaneLease:
    """Leases a slot in the registry and keeps it.

    A process that was killed leaves its slot leased, so the one that starts in its place issues
    other numbers, even those that the first had issued ahead of the clock. `exclusive` says that no
    other process can be there (an embedded registry), so that the longest free slot may be
    taken whatever its lease says.
    """

    def __init__(
        self,
        registry: Registry,
        slots: int,
        *,
        exclusive: bool,
        now: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._slots = slots
        self._exclusive = exclusive
        self._now_s = now
        self._monotonic = monotonic
        self._owner = secrets.token_hex(16)
        self._lane: Lane | None = None
        self._valid_until = 0.0
        self.first_attempt = asyncio.Event()

    def lane(self) -> Lane:
        """The lane, while its lease surely holds (by a clock that goes on while we are frozen).

        Raises:
            StoreUnavailableError: there is none; the registry could not be asked in time.
        """
        if self._lane is None or self._monotonic() >= self._valid_until:
            raise StoreUnavailableError("registry")
        return self._lane

    def is_held(self) -> bool:
        return self._lane is not None and self._monotonic() < self._valid_until

    async def acquire(self) -> bool:
        """Take a slot; False where all are leased."""
        asked = self._monotonic()
        now = datetime.fromtimestamp(self._now_s(), UTC)
        free_until = datetime.max.replace(tzinfo=UTC) if self._exclusive else now
        slot = await self._registry.lease_slot(self._owner, self._slots, now + _LEASE, free_until)
        if slot is None:
            return False
        self._lane = Lane(slot, self._slots)
        self._extend(asked)
        return True

    async def keep(self, stop: asyncio.Event) -> None:
        """Take a slot, renew its lease until `stop`; a supervised worker runs this."""
        while not stop.is_set():
            held = False
            try:
                held = await self._renew()
            except StoreUnavailableError:
                _log.warning("lane_not_renewed")
            if held:
                self.first_attempt.set()
            await pause(stop, _RENEW_S if held else _RETRY_S)

    async def _renew(self) -> bool:
        if self._lane is None:
            return await self.acquire()
        asked = self._monotonic()
        until = datetime.fromtimestamp(self._now_s(), UTC) + _LEASE
        if await self._registry.extend_slot(self._lane.index, self._owner, until):
            self._extend(asked)
            return True
        _log.warning("lane_lost", slot=self._lane.index)
        self._lane = None
        return await self.acquire()

    def _extend(self, asked: float) -> None:
        self._valid_until = asked + _LEASE.total_seconds() - _MARGIN_S
