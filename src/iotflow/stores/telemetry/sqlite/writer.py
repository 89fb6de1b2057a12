"""The one writer: a thread that commits whatever is queued as one transaction.

What it commits is the journal; between commits it merges the journal into the points.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from threading import Thread
from time import monotonic
from typing import TypeVar

import msgspec
import structlog

from iotflow.domain.points import Submission
from iotflow.errors import OverloadedError, StoreUnavailableError
from iotflow.stores.telemetry.sqlite.checkpoints import Checkpointer
from iotflow.stores.telemetry.sqlite.deletes import RangeDelete
from iotflow.stores.telemetry.sqlite.driver import BUSY, Connection, roll_back, translated
from iotflow.stores.telemetry.sqlite.jobs import Change, Delete, Job, Jobs, Merge, Write
from iotflow.stores.telemetry.sqlite.journal import Journal

_MAX_DELETES = 64
_MAX_MERGES = 1024
# About 2 ms of the writer's time, in which nobody is answered.
_CHUNK_POINTS = 512
# So long with nothing to do, and nobody is held up by a chunk.
_IDLE_S = 0.005
_MERGE_AGAIN_S = 1.0
# About what a chunk of a delete touches.
_DELETE_PAGES = 200

T = TypeVar("T")
J = TypeVar("J", Merge, Change)

_log = structlog.get_logger(__name__)


class _Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of a job. `error` None: it is done, and durable."""

    job: Job
    error: Exception | None


class Writer:
    """Owns the writing connection and its thread.

    A job's future is settled after its commit. A long delete gives way to others between its
    chunks. Everything but the thread's own work happens on the event loop, counters too.
    """

    def __init__(
        self,
        connection: Connection,
        journal: Journal,
        checkpointer: Checkpointer,
        max_queued_points: int,
    ) -> None:
        self.queued_points = 0
        self.queued_deletes = 0
        self.queued_merges = 0
        self.groups_committed = 0
        self.submissions_committed = 0
        self._connection = connection
        self._journal = journal
        self._checkpointer = checkpointer
        self._merge_from_s = 0.0
        self._max_queued_points = max_queued_points
        self._loop = asyncio.get_running_loop()
        self._jobs = Jobs(self._loop)
        self._abandoned = False
        self._ended = self._loop.create_future()
        self._thread = Thread(target=self._run, name="iotflow-telemetry-writer", daemon=True)
        self._thread.start()

    @property
    def journal_points(self) -> int:
        """Points that are durable, and not in their table yet."""
        return self._journal.points

    @property
    def unmerged(self) -> list[int]:
        """Devices with points that are durable, and not in their table yet."""
        return self._journal.devices

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
        self._jobs.put(Write(submission, future))
        return future

    def delete(self, delete: RangeDelete) -> asyncio.Future[int]:
        """Queue a delete; the answer is the number of points. Raises OverloadedError."""
        if self.queued_deletes >= _MAX_DELETES:
            raise OverloadedError("deletion")
        self.queued_deletes += 1
        future: asyncio.Future[int] = self._loop.create_future()
        self._jobs.put(Delete(delete, future))
        return future

    async def merge(self, device_ids: Iterable[int]) -> None:
        """Return once all that is durable of these devices can be read from their table.

        Raises:
            OverloadedError: too many wait for that.
            StoreUnavailableError: the file cannot be written.
        """
        held = [device_id for device_id in device_ids if self._journal.holds(device_id)]
        if not held:
            return
        if self.queued_merges >= _MAX_MERGES:
            raise OverloadedError("reading")
        self.queued_merges += 1
        future: asyncio.Future[None] = self._loop.create_future()
        self._jobs.put_merge(Merge(held, future))
        await future

    async def close(self, drain_s: float) -> None:
        """Write what is queued, for at most about `drain_s`; what is left then is refused."""
        self._jobs.close()
        try:
            async with asyncio.timeout(drain_s):
                await asyncio.shield(self._ended)
        except TimeoutError:
            self._abandoned = True
            self._connection.interrupt()
            await self._ended
        self._thread.join()
        await asyncio.to_thread(self._checkpointer.close)
        self._connection.close()

    # From here on in the thread.

    def _run(self) -> None:
        try:
            while not self._jobs.is_done:
                self._take_turn()
            self._merge_quietly(self._merge_rest)
        finally:
            self._tell_loop(self._ended.set_result, None)

    def _take_turn(self) -> None:
        self._jobs.wait(self._seconds_to_wait())
        merges, changes = self._jobs.take_merges(), self._jobs.take_changes()
        self._do(merges, self._merge_for_readers)
        self._do(changes, self._change)
        if self._seconds_until_merge() == 0.0:
            is_idle = not (merges or changes)
            self._merge_quietly(self._merge_chunk if is_idle else self._journal.keep_pace)
        self._checkpointer.wrote(self._journal.take_pages())
        self._checkpointer.take_turn()

    def _do(self, jobs: Sequence[J], perform: Callable[[Sequence[J]], list[_Outcome]]) -> None:
        """Do jobs and tell the loop what became of them."""
        if not jobs:
            return
        try:
            if self._abandoned:
                raise StoreUnavailableError("telemetry")
            outcomes = perform(jobs)
        except Exception as error:
            roll_back(self._connection)
            outcomes = [_Outcome(job, translated(error)) for job in jobs]
        if outcomes:
            self._tell_loop(self._settle, outcomes)

    def _merge_for_readers(self, merges: Sequence[Merge]) -> list[_Outcome]:
        self._journal.merge_devices([each for merge in merges for each in merge.device_ids])
        return [_Outcome(merge, None) for merge in merges]

    def _change(self, changes: Sequence[Change]) -> list[_Outcome]:
        outcomes: list[_Outcome] = []
        writes: list[Write] = []
        for job in changes:
            if isinstance(job, Write):
                writes.append(job)
            elif self._delete_chunk(job.delete):
                outcomes.append(_Outcome(job, None))
            else:
                self._jobs.put_back(job)
        return outcomes + self._commit(writes) if writes else outcomes

    def _delete_chunk(self, delete: RangeDelete) -> bool:
        if not delete.has_begun:
            # Or what it deletes would come back out of the journal.
            self._journal.merge_all(_CHUNK_POINTS)
        self._checkpointer.wrote(_DELETE_PAGES)
        return delete.take_chunk(self._connection)

    def _commit(self, group: Sequence[Write]) -> list[_Outcome]:
        """One transaction for all; if it fails one for each, so that one spoils no other."""
        try:
            if self._journal.is_full:
                self._journal.merge_all(_CHUNK_POINTS)
            self._journal.append([job.submission for job in group])
        except Exception as error:
            roll_back(self._connection)
            if len(group) == 1 or self._abandoned or isinstance(error, BUSY):
                return [_Outcome(job, translated(error)) for job in group]
            _log.warning("telemetry_group_failed", submissions=len(group), error=repr(error))
            return [outcome for job in group for outcome in self._commit([job])]
        return [_Outcome(job, None) for job in group]

    def _seconds_until_merge(self) -> float | None:
        due_s = self._journal.seconds_until_due()
        return None if due_s is None else max(due_s, self._merge_from_s - monotonic(), 0.0)

    def _seconds_to_wait(self) -> float | None:
        until_s = self._seconds_until_merge()
        return None if until_s is None else max(until_s, _IDLE_S)

    def _merge_chunk(self) -> None:
        self._journal.merge_chunk(_CHUNK_POINTS)

    def _merge_rest(self) -> None:
        self._journal.merge_all(_CHUNK_POINTS, lambda: not self._abandoned)

    def _merge_quietly(self, merge: Callable[[], None]) -> None:
        """Merge; where that fails nothing is lost, and it is tried again later."""
        try:
            merge()
        except Exception as error:
            self._merge_from_s = monotonic() + _MERGE_AGAIN_S
            _log.warning("telemetry_not_merged", error=repr(error))

    def _tell_loop(self, callback: Callable[[T], object], argument: T) -> None:
        # A loop that was closed has nobody left who waits.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, argument)

    # On the loop again.

    def _settle(self, outcomes: Sequence[_Outcome]) -> None:
        """Answer everybody of a turn at one wake-up of the loop."""
        committed = 0
        for outcome in outcomes:
            job, error = outcome.job, outcome.error
            if isinstance(job, Write):
                self.queued_points -= len(job.submission.points)
                committed += error is None
            elif isinstance(job, Merge):
                self.queued_merges -= 1
            else:
                self.queued_deletes -= 1
            if job.future.done():
                continue  # cancelled; what it asked for is done all the same
            if error is not None:
                job.future.set_exception(error)
            elif isinstance(job, Delete):
                job.future.set_result(job.delete.deleted)
            else:
                job.future.set_result(None)
        self.submissions_committed += committed
        self.groups_committed += committed > 0
