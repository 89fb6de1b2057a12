"""The lease on this process's lane: its share of all timestamps and write marks."""

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from iotflow.domain.clock import DeviceClock, Lane
from iotflow.errors import StoreUnavailableError
from iotflow.pipeline.backoff import idle
from iotflow.stores.registry.protocol import Registry, Slot

_RENEW_S = 2.0
_RETRY_S = 0.5
# Without word from the registry, good or bad, for so long this process has been frozen.
_FROZEN_AFTER_S = 10.0
# Seen unchanged for so long, in unbroken contact with the registry, another process is dead.
_DEAD_AFTER_S = 15.0
# What others have issued ahead of the clock, in lanes that were wider then, is past after this.
_SETTLE_S = DeviceClock.MAX_AHEAD_MS / 1000 + 1.0
_RELEASE_S = 1.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LanePlan:
    """At most `limit` processes at once; at least `min_lanes` lanes, so that the first ones
    need not wait for each other. `alone` says that no other process can be there."""

    limit: int
    min_lanes: int
    alone: bool = False


EMBEDDED = LanePlan(limit=2, min_lanes=2, alone=True)
SHARED = LanePlan(limit=1024, min_lanes=4)


class LaneLease:
    """Claims a slot in the registry and keeps it (docs/decisions/0005).

    The lanes are as many as the slots in use need. A process that needs more than the others
    count by issues nothing until all of them count by as many. While the registry is away
    nobody can join, so the lane stays; a process that was frozen has to ask first.
    """

    def __init__(
        self,
        registry: Registry,
        plan: LanePlan,
        *,
        now: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._plan = plan
        self._now_s = now
        self._monotonic = monotonic
        self._owner = secrets.token_hex(16)
        self._claimed = False
        self._lane: Lane | None = None
        self._valid_until_s = float("-inf")
        self._settled_at_s: float | None = None
        self._others: dict[str, tuple[datetime, float]] = {}
        self.first_attempt = asyncio.Event()

    def lane(self) -> Lane:
        """The lane of this process.

        Raises:
            StoreUnavailableError: there is none yet, or nobody knows whether it is still ours.
        """
        if self._lane is None or self._monotonic() >= self._valid_until_s:
            raise StoreUnavailableError("registry")
        return self._lane

    def is_held(self) -> bool:
        return self._lane is not None and self._monotonic() < self._valid_until_s

    async def keep(self, stop: asyncio.Event) -> None:
        """Claim a slot, renew it until `stop`, and give it back; a supervised worker runs this.

        An unforeseen error gives nothing back: the worker is started again, and goes on with it.
        """
        while not stop.is_set():
            await self.attempt()
            if self.is_held():
                self.first_attempt.set()
                if self._plan.alone:
                    await stop.wait()
                    break
            await idle(stop, _RENEW_S if self.is_held() else _RETRY_S)
        await self._release()

    async def attempt(self) -> None:
        """Ask the registry once."""
        asked_s = self._monotonic()
        try:
            slots = await (self._renew() if self._claimed else self._claim())
        except StoreUnavailableError:
            _log.warning("lane_not_renewed")
            self._others.clear()
            self._valid_until_s = asked_s + _FROZEN_AFTER_S
            return
        if slots is None:
            self._lose()
            return
        self._valid_until_s = float("inf") if self._plan.alone else asked_s + _FROZEN_AFTER_S
        self._observe(slots)
        self._choose(slots)

    async def _claim(self) -> list[Slot] | None:
        slots = await self._registry.claim_slot(
            self._owner,
            self._plan.limit,
            self._plan.min_lanes,
            self._now(),
            self._dead(),
            alone=self._plan.alone,
        )
        self._claimed = slots is not None
        if slots is not None and self._mine(slots).number < self._plan.min_lanes:
            self._settled_at_s = self._monotonic()  # nobody's lanes were ever wider than ours
        return slots

    async def _renew(self) -> list[Slot] | None:
        return await self._registry.renew_slot(
            self._owner, self._plan.min_lanes, self._now(), self._dead()
        )

    def _choose(self, slots: Collection[Slot]) -> None:
        mine = self._mine(slots)
        if self._lane is None:
            if any(slot.lanes < mine.lanes for slot in slots):
                self._settled_at_s = None
                return
            if self._settled_at_s is None:
                self._settled_at_s = self._monotonic() + _SETTLE_S
            if self._monotonic() < self._settled_at_s:
                return
        self._lane = Lane(mine.number, mine.lanes)

    def _mine(self, slots: Collection[Slot]) -> Slot:
        return next(slot for slot in slots if slot.owner == self._owner)

    def _observe(self, slots: Collection[Slot]) -> None:
        now_s = self._monotonic()
        seen = self._others
        self._others = {
            slot.owner: (slot.renewed_at, seen[slot.owner][1])
            if slot.owner in seen and seen[slot.owner][0] == slot.renewed_at
            else (slot.renewed_at, now_s)
            for slot in slots
            if slot.owner != self._owner
        }

    def _dead(self) -> Mapping[str, datetime]:
        since_s = self._monotonic() - _DEAD_AFTER_S
        return {
            owner: renewed_at
            for owner, (renewed_at, first_seen_s) in self._others.items()
            if first_seen_s <= since_s
        }

    def _lose(self) -> None:
        if self._claimed:
            _log.warning("lane_lost")
        self._claimed = False
        self._lane = self._settled_at_s = None

    async def _release(self) -> None:
        self._lane = None
        if self._claimed:
            with suppress(StoreUnavailableError, TimeoutError):
                async with asyncio.timeout(_RELEASE_S):
                    await self._registry.release_slot(self._owner, self._now())

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._now_s(), UTC)
