"""The one writer: a thread that commits whatever is queued as one transaction."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import NamedTuple, TypeVar

import structlog

from iotflow.domain.points import Submission
from iotflow.errors import OverloadedError, StoreUnavailableError
from iotflow.stores.telemetry.sqlite.connections import is_busy, translated
from iotflow.stores.telemetry.sqlite.deletes import RangeDelete
from iotflow.stores.telemetry.sqlite.upserts import write_submissions

_GROUP_SUBMISSIONS = 256
_GROUP_POINTS = 20_000
_MAX_DELETES = 64

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class _Write(NamedTuple):
    submission: Submission
    future: asyncio.Future[None]


class _Delete(NamedTuple):
    delete: RangeDelete
    future: asyncio.Future[int]


class _Outcome(NamedTuple):
    """What became of a job. `error` None: it is durable."""

    job: _Write | _Delete
    error: Exception | None


class Writer:
    """Owns the writing connection and its thread.

    A job's future is settled after its commit. Jobs are taken in the order in which they were
    given; a long delete gives way to the others between its chunks. Everything but the thread's
    own work happens on the event loop, counters too.
    """

    def __init__(self, connection: sqlite3.Connection, max_queued_points: int) -> None:
        self.queued_points = 0
        self.queued_deletes = 0
        self.groups_committed = 0
        self.submissions_committed = 0
        self._connection = connection
        self._max_queued_points = max_queued_points
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Write | _Delete | None] = SimpleQueue()
        self._held: _Write | _Delete | None = None
        self._draining = False
        self._abandoned = False
        self._ended = self._loop.create_future()
        self._thread = Thread(target=self._run, name="iotflow-telemetry-writer", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, submission: Submission) -> asyncio.Future[None]:
        """Queue a submission. Raises OverloadedError where too many points wait."""
        waiting = self.queued_points + len(submission.points)
        # One alone is taken whatever its size, or it would never be.
        if waiting > self._max_queued_points and self.queued_points:
            raise OverloadedError("telemetry")
        self.queued_points = waiting
        future: asyncio.Future[None] = self._loop.create_future()
        self._queue.put(_Write(submission, future))
        return future

    def delete(self, delete: RangeDelete) -> asyncio.Future[int]:
        """Queue a delete; the answer is the number of points. Raises OverloadedError."""
        if self.queued_deletes >= _MAX_DELETES:
            raise OverloadedError("deletion")
        self.queued_deletes += 1
        future: asyncio.Future[int] = self._loop.create_future()
        self._queue.put(_Delete(delete, future))
        return future

    async def close(self, drain_s: float) -> None:
        """Write what is queued, for at most about `drain_s`; what is left then is refused."""
        self._queue.put(None)
        try:
            async with asyncio.timeout(drain_s):
                await asyncio.shield(self._ended)
        except TimeoutError:
            self._abandoned = True
            self._connection.interrupt()
            await self._ended
        self._thread.join()
        self._connection.close()

    # From here on in the thread.

    def _run(self) -> None:
        try:
            while not (self._draining and self._held is None and self._queue.empty()):
                self._take_turn()
        finally:
            self._tell_loop(self._ended.set_result, None)

    def _take_turn(self) -> None:
        turn = self._next_turn()
        try:
            outcomes = self._perform(turn)
        except Exception as error:
            self._roll_back()
            outcomes = [_Outcome(job, translated(error)) for job in turn]
        if outcomes:
            self._tell_loop(self._settle, outcomes)

    def _next_turn(self) -> Sequence[_Write] | Sequence[_Delete]:
        """Submissions that become one transaction, or one delete, or nothing."""
        job = self._held or self._queue.get()
        self._held = None
        group: list[_Write] = []
        points = 0
        while isinstance(job, _Write):
            group.append(job)
            points += len(job.submission.points)
            if len(group) == _GROUP_SUBMISSIONS or points >= _GROUP_POINTS:
                return group
            try:
                job = self._queue.get_nowait()
            except Empty:
                return group
        if job is None:
            self._draining = True
        elif not group:
            return [job]
        else:
            self._held = job
        return group

    def _perform(self, turn: Sequence[_Write] | Sequence[_Delete]) -> list[_Outcome]:
        if self._abandoned:
            return [_Outcome(job, StoreUnavailableError("telemetry")) for job in turn]
        outcomes: list[_Outcome] = []
        writes: list[_Write] = []
        for job in turn:
            if isinstance(job, _Write):
                writes.append(job)
            elif job.delete.take_chunk(self._connection):
                outcomes.append(_Outcome(job, None))
            else:
                self._queue.put(job)  # those who came meanwhile go first
        return outcomes + self._commit(writes) if writes else outcomes

    def _commit(self, group: Sequence[_Write]) -> list[_Outcome]:
        """One transaction for all; if it fails one for each, so that one spoils no other."""
        try:
            write_submissions(self._connection, [job.submission for job in group])
            self._connection.commit()
        except Exception as error:
            self._roll_back()
            if len(group) == 1 or self._abandoned or is_busy(error):
                return [_Outcome(job, translated(error)) for job in group]
            _log.warning("telemetry_group_failed", submissions=len(group), error=repr(error))
            return [outcome for job in group for outcome in self._commit([job])]
        return [_Outcome(job, None) for job in group]

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            self._connection.rollback()

    def _tell_loop(self, callback: Callable[[T], object], argument: T) -> None:
        # A loop that was closed has nobody left who waits.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, argument)

    # On the loop again.

    def _settle(self, outcomes: Sequence[_Outcome]) -> None:
        """Answer everybody of a turn at one wake-up of the loop."""
        committed = 0
        for job, error in outcomes:
            if isinstance(job, _Write):
                self.queued_points -= len(job.submission.points)
                committed += error is None
            else:
                self.queued_deletes -= 1
            if job.future.done():
                continue  # cancelled; what it asked for is done all the same
            if error is not None:
                job.future.set_exception(error)
            elif isinstance(job, _Write):
                job.future.set_result(None)
            else:
                job.future.set_result(job.delete.deleted)
        self.submissions_committed += committed
        self.groups_committed += committed > 0
