"""Group commit: what waits to be written becomes one transaction."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from iotflow.domain.points import Submission
from iotflow.errors import OverloadedError, StoreUnavailableError
from iotflow.stores.breaker import BreakerState
from iotflow.stores.telemetry.postgres.connections import Connections
from iotflow.stores.telemetry.postgres.upserts import write_submissions

_GROUP_SUBMISSIONS = 512
_GROUP_POINTS = 20_000

_log = structlog.get_logger(__name__)


class _Write(NamedTuple):
    submission: Submission
    future: asyncio.Future[None]


class Writer:
    """Workers that each commit, as one group, whatever waits when they are free.

    A submission is answered after the commit of its group. Groups of different workers may
    commit in any order: the marks of their points decide which of two writes holds. While the
    server does not answer, all who wait are told so at once, not one group after another.
    """

    def __init__(
        self, connections: Connections, *, workers: int, max_queued_points: int, limit_s: float
    ) -> None:
        self.queued_points = 0
        self.groups_committed = 0
        self.submissions_committed = 0
        self._connections = connections
        self._max_queued_points = max_queued_points
        self._limit_s = limit_s
        self._queue: deque[_Write] = deque()
        self._unsettled: dict[asyncio.Future[None], int] = {}
        self._changed = asyncio.Event()
        self._draining = False
        self._tasks = [
            asyncio.create_task(self._run(), name=f"iotflow-telemetry-writer-{number}")
            for number in range(workers)
        ]
        for task in self._tasks:
            task.add_done_callback(_tell_crash)

    @property
    def is_alive(self) -> bool:
        return not any(task.done() for task in self._tasks)

    @property
    def _is_away(self) -> bool:
        return self._connections.breaker.state is BreakerState.OPEN

    def submit(self, submission: Submission) -> asyncio.Future[None]:
        """Queue a submission.

        Raises:
            OverloadedError: too many points wait.
            StoreUnavailableError: the server has not answered lately, or the writer was closed.
        """
        if not self.is_alive or self._draining or self._is_away:
            raise StoreUnavailableError("telemetry")
        waiting = self.queued_points + len(submission.points)
        # One alone is taken whatever its size, or it would never be.
        if waiting > self._max_queued_points and self.queued_points:
            raise OverloadedError("telemetry")
        self.queued_points = waiting
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unsettled[future] = submission.device_id
        self._queue.append(_Write(submission, future))
        self._changed.set()
        return future

    async def settled(self, device_id: int) -> None:
        """Until what was submitted for a device by now has its answer."""
        waiting = [future for future, device in self._unsettled.items() if device == device_id]
        if waiting:
            await asyncio.wait(waiting)

    async def close(self, drain_s: float) -> None:
        """Write what is queued, for at most about `drain_s`; what is left then is refused."""
        self._draining = True
        self._changed.set()
        _, late = await asyncio.wait(self._tasks, timeout=drain_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._refuse_queued()

    async def _run(self) -> None:
        while True:
            group = self._next_group()
            if group:
                await self._commit_and_settle(group)
            elif self._draining:
                return
            else:
                self._changed.clear()
                await self._changed.wait()

    def _next_group(self) -> list[_Write]:
        group: list[_Write] = []
        points = 0
        while self._queue and len(group) < _GROUP_SUBMISSIONS and points < _GROUP_POINTS:
            job = self._queue.popleft()
            group.append(job)
            points += len(job.submission.points)
        return group

    async def _commit_and_settle(self, group: Sequence[_Write]) -> None:
        errors: Sequence[Exception | None] = _unavailable(len(group))
        try:
            errors = await self._commit(group)
        finally:  # also where the worker is cancelled: nobody waits for ever
            self._settle(group, errors)
        if any(isinstance(error, StoreUnavailableError) for error in errors):
            self._refuse_queued()

    async def _commit(self, group: Sequence[_Write]) -> Sequence[Exception | None]:
        """One transaction for all; if it fails one for each, so that one spoils no other."""
        try:
            await self._write(group)
        except StoreUnavailableError as error:
            return _unavailable(len(group), error)
        except Exception as error:
            if len(group) == 1:
                return [error]
            error_type = type(error.__cause__ or error).__name__  # its text would tell values
            _log.warning("telemetry_group_failed", submissions=len(group), error=error_type)
            return await self._commit_each(group)
        self.groups_committed += 1
        self.submissions_committed += len(group)
        return [None] * len(group)

    async def _commit_each(self, group: Sequence[_Write]) -> Sequence[Exception | None]:
        outcomes: list[Exception | None] = []
        for job in group:
            outcomes += await self._commit([job])
            if isinstance(outcomes[-1], StoreUnavailableError):
                return outcomes + _unavailable(len(group) - len(outcomes), outcomes[-1])
        return outcomes

    async def _write(self, group: Sequence[_Write]) -> None:
        async with self._connections.one(self._limit_s) as connection:
            await write_submissions(connection, [job.submission for job in group])

    def _refuse_queued(self) -> None:
        refused = list(self._queue)
        self._queue.clear()
        self._settle(refused, _unavailable(len(refused)))

    def _settle(self, group: Sequence[_Write], errors: Sequence[Exception | None]) -> None:
        for job, error in zip(group, errors, strict=True):
            self.queued_points -= len(job.submission.points)
            del self._unsettled[job.future]
            if job.future.done():
                continue  # cancelled; what it asked for is done all the same
            if error is None:
                job.future.set_result(None)
            else:
                job.future.set_exception(error)


def _unavailable(count: int, cause: BaseException | None = None) -> list[Exception | None]:
    """One for each who waits: an error that several raise at once mixes up their traces."""
    errors: list[Exception | None] = []
    for _ in range(count):
        error = StoreUnavailableError("telemetry")
        error.__cause__ = cause
        errors.append(error)
    return errors


def _tell_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("telemetry_writer_crashed", worker=task.get_name(), error=repr(error))
