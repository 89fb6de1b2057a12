"""Writes queued events to the event store, in batches."""

import asyncio
from collections.abc import Sequence

import structlog

from iotflow.domain.events import Event
from iotflow.errors import StoreUnavailableError
from iotflow.pipeline.backoff import Backoff, pause
from iotflow.pipeline.queue import BoundedQueue, closed_by
from iotflow.stores.events.protocol import EventStore

_log = structlog.get_logger(__name__)

# A batch that has failed so often in ways nobody foresaw is searched for the event at fault.
_CRASHES_BEFORE_SEARCH = 3
_LONGEST_PAUSE_S = 5.0


class EventLogWorker:
    """Reads a queue of events until `stop`, then drains it.

    While the store is away the batch at hand is kept and tried again; behind it the queue
    fills and drops its oldest. An unforeseen error ends `run`, for the supervisor to see and
    restart; the batch is kept then too. If the same batch has ended it three times, each event
    the store will not take by itself is given up and counted in `rejected`.

    `written` counts events that the store has, `failed_attempts` batches refused because the
    store was away, `lost_at_stop` what was left when `run` ended after `stop`.
    """

    def __init__(
        self,
        queue: BoundedQueue[Event],
        store: EventStore,
        *,
        batch: int = 500,
        linger_s: float = 0.2,
        backoff: Backoff | None = None,
    ) -> None:
        self.written = 0
        self.failed_attempts = 0
        self.rejected = 0
        self.lost_at_stop = 0
        self._queue = queue
        self._store = store
        self._batch_size = batch
        self._linger_s = linger_s
        # While the store is away more is dropped: its return must not be noticed late.
        self._backoff = backoff or Backoff(cap_s=_LONGEST_PAUSE_S)
        self._batch: Sequence[Event] = ()
        self._crashes = 0
        self._away = False

    @property
    def unwritten(self) -> int:
        """Events that wait; after the end, those that never were written."""
        return len(self._batch) + self._queue.depth

    def waiting(self) -> list[Event]:
        """Those events; some of them may have been written without an answer."""
        return [*self._batch, *self._queue.waiting()]

    async def run(self, stop: asyncio.Event) -> None:
        """A supervised worker."""
        try:
            async with closed_by(stop, self._queue):
                while batch := self._batch or await self._next_batch():
                    self._batch = batch
                    await self._write(batch, stop)
                    self._batch = ()
        finally:
            if stop.is_set():
                self._tell_lost()

    async def _next_batch(self) -> list[Event]:
        return await self._queue.get_batch(self._batch_size, self._linger_s)

    async def _write(self, batch: Sequence[Event], stop: asyncio.Event) -> None:
        while True:
            try:
                await self._append(batch)
            except StoreUnavailableError:
                self._tell_away()
                await pause(stop, self._backoff.next_s())
                if stop.is_set():
                    self._backoff.reset()  # little time is left: short delays only
            else:
                break
        self._tell_back()
        self._backoff.reset()
        self._crashes = 0

    async def _append(self, batch: Sequence[Event]) -> None:
        try:
            await self._store.append(batch)
        except StoreUnavailableError:
            raise
        except Exception as error:
            self._crashes += 1
            if self._crashes < _CRASHES_BEFORE_SEARCH:
                raise
            rejected = await self._append_halves(batch, error)
            self.rejected += len(rejected)
            self.written += len(batch) - len(rejected)
            for event, cause in rejected:
                _log.error("event_rejected", event_id=event.id, error=type(cause).__name__)
        else:
            self.written += len(batch)

    async def _append_halves(
        self, batch: Sequence[Event], error: Exception
    ) -> list[tuple[Event, Exception]]:
        """Store all of a batch but the events at fault; returns those, with what was said of each.

        Should the store go away meanwhile, all of it is done again: storing one twice changes
        nothing.
        """
        if len(batch) == 1:
            return [(batch[0], error)]
        middle = len(batch) // 2
        rejected: list[tuple[Event, Exception]] = []
        for half in (batch[:middle], batch[middle:]):
            try:
                await self._store.append(half)
            except StoreUnavailableError:
                raise
            except Exception as half_error:
                rejected += await self._append_halves(half, half_error)
        return rejected

    def _tell_away(self) -> None:
        self.failed_attempts += 1
        if not self._away:
            self._away = True
            _log.warning("event_store_away", waiting=len(self._batch) + self._queue.depth)

    def _tell_back(self) -> None:
        if self._away:
            self._away = False
            _log.info("event_store_back", dropped=self._queue.dropped)

    def _tell_lost(self) -> None:
        self.lost_at_stop = self.unwritten
        if self.lost_at_stop:
            _log.warning("events_lost_at_stop", events=self.lost_at_stop)
