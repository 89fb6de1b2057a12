"""Stamps when something was last seen, many in one write."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from iotflow.errors import StoreUnavailableError
from iotflow.pipeline.backoff import Backoff, idle, pause
from iotflow.pipeline.queue import CoalescingMap

Flush = Callable[[Mapping[int, int]], Awaitable[None]]
"""Writes epoch milliseconds by id; a stamp that is older than what is there must change nothing."""

_log = structlog.get_logger(__name__)


class LastSeenWorker:
    """Writes every `every_s` what was noted since, and all of it after `stop`.

    What could not be written waits, coalesced with what is noted meanwhile, and is tried
    again; past `capacity` ids the one noted first is dropped and counted. `written` counts
    stamps, `failed_attempts` writes refused because the registry was away, `lost_at_stop`
    the stamps left when `run` ended after `stop`.
    """

    def __init__(
        self,
        flush: Flush,
        *,
        capacity: int = 100_000,
        every_s: float = 1.0,
        batch: int = 10_000,
        backoff: Backoff | None = None,
    ) -> None:
        self.written = 0
        self.failed_attempts = 0
        self.lost_at_stop = 0
        self._seen = CoalescingMap(capacity)
        self._flush = flush
        self._every_s = every_s
        self._batch_size = batch
        self._backoff = backoff or Backoff()

    @property
    def depth(self) -> int:
        return len(self._seen)

    @property
    def dropped(self) -> int:
        return self._seen.dropped

    def note(self, key: int, seen_ms: int) -> None:
        """Note when an id was seen; never waits, never raises."""
        self._seen.note(key, seen_ms)

    async def run(self, stop: asyncio.Event) -> None:
        """A supervised worker."""
        try:
            while not stop.is_set():
                await idle(stop, self._every_s)
                await self._flush_noted(stop)
            await self._flush_noted(stop)
        finally:
            if stop.is_set():
                self._tell_lost()

    async def _flush_noted(self, stop: asyncio.Event) -> None:
        """Write as many as there are now; those noted meanwhile can wait and coalesce."""
        left = len(self._seen)
        while left > 0 and len(self._seen):
            taken = self._seen.take(min(left, self._batch_size))
            if await self._write(taken):
                left -= len(taken)
                continue
            await pause(stop, self._backoff.next_s())
            if stop.is_set():
                self._backoff.reset()  # little time is left: short delays only

    async def _write(self, taken: Mapping[int, int]) -> bool:
        """Whether it was written; if not, or on an error, everything is back in `seen`."""
        try:
            await self._flush(taken)
        except StoreUnavailableError:
            self._seen.put_back(taken)
            self.failed_attempts += 1
            return False
        except BaseException:
            self._seen.put_back(taken)
            raise
        self.written += len(taken)
        self._backoff.reset()
        return True

    def _tell_lost(self) -> None:
        self.lost_at_stop = len(self._seen)
        if self.lost_at_stop:
            _log.warning("last_seen_lost_at_stop", stamps=self.lost_at_stop)
