"""Owns the background workers: restarts those that fail, and stops them all within a bound."""

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import structlog

from iotflow.pipeline.backoff import Backoff, pause

Run = Callable[[asyncio.Event], Awaitable[None]]
"""A worker. It returns soon after the event is set, with its work drained, and not before."""

_log = structlog.get_logger(__name__)

# How long a worker may take to die of a cancellation before it is given up.
_CANCEL_S = 1.0


class WorkerState(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    BACKING_OFF = "backing_off"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """How a worker is. `last_error` is the type of what it last failed of, never the text."""

    state: WorkerState
    restarts: int
    last_error: str | None


@dataclass(frozen=True, slots=True)
class StopReport:
    """Workers that did not end well: why, by name. Empty after a clean stop."""

    failed: Mapping[str, str]

    @property
    def is_clean(self) -> bool:
        return not self.failed


class ReturnedEarlyError(Exception):
    """A worker returned although nobody had asked it to stop."""


@dataclass(slots=True)
class _Worker:
    name: str
    run: Run
    backoff: Backoff
    state: WorkerState = WorkerState.STARTING
    restarts: int = 0
    last_error: str | None = None
    failed_at_stop: str | None = None
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Supervisor:
    """Runs named workers until it is stopped.

    A worker that raises, or returns before it was asked to, is started again after a delay
    that doubles from `first_delay_s` to `delay_cap_s`; having run for `healthy_after_s` it
    begins at the first delay again.
    """

    def __init__(
        self,
        *,
        first_delay_s: float = 0.5,
        delay_cap_s: float = 30.0,
        healthy_after_s: float = 60.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first_delay_s = first_delay_s
        self._delay_cap_s = delay_cap_s
        self._healthy_after_s = healthy_after_s
        self._monotonic = monotonic
        self._workers: dict[str, _Worker] = {}
        self._stop = asyncio.Event()
        self._started = False

    def add(self, name: str, run: Run) -> None:
        """Add a worker, before `start`."""
        if self._started or name in self._workers:
            raise RuntimeError(f"Worker {name} cannot be added now.")
        backoff = Backoff(self._first_delay_s, self._delay_cap_s)
        self._workers[name] = _Worker(name, run, backoff)

    def start(self) -> None:
        """Start all workers, once."""
        if self._started:
            raise RuntimeError("The workers have been started already.")
        self._started = True
        for worker in self._workers.values():
            worker.task = asyncio.create_task(self._supervise(worker), name=worker.name)

    async def stop(self, within_s: float) -> StopReport:
        """Ask all workers to drain and end; cancel those that have not after `within_s`."""
        self._stop.set()
        tasks = {worker.task for worker in self._workers.values() if worker.task is not None}
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=within_s)
        finally:
            await self._cancel_rest()
        failed = {
            worker.name: worker.failed_at_stop
            for worker in self._workers.values()
            if worker.failed_at_stop is not None
        }
        if failed:
            _log.warning("workers_not_drained", workers=failed)
        return StopReport(failed)

    def states(self) -> Mapping[str, WorkerStatus]:
        """Every worker's status by name."""
        return {
            worker.name: WorkerStatus(worker.state, worker.restarts, worker.last_error)
            for worker in self._workers.values()
        }

    async def _cancel_rest(self) -> None:
        late = {
            worker.task: worker
            for worker in self._workers.values()
            if worker.task is not None and not worker.task.done()
        }
        for task, worker in late.items():
            worker.failed_at_stop = "cancelled"
            task.cancel()
        if late:
            _, stuck = await asyncio.wait(late, timeout=_CANCEL_S)
            for task in stuck:
                late[task].failed_at_stop = "stuck"

    async def _supervise(self, worker: _Worker) -> None:
        try:
            while not self._stop.is_set():
                began_s = self._monotonic()
                error = await self._run_once(worker)
                if error is None:
                    break
                worker.last_error = type(error).__name__
                if self._stop.is_set():
                    worker.failed_at_stop = worker.last_error
                    _log.warning("worker_failed_while_stopping", **_told(worker, error))
                    break
                if self._monotonic() - began_s >= self._healthy_after_s:
                    worker.backoff.reset()
                await self._back_off(worker, error)
        finally:
            worker.state = WorkerState.STOPPED

    async def _run_once(self, worker: _Worker) -> BaseException | None:
        """What the worker failed of; None where it ended as it should."""
        worker.state = WorkerState.RUNNING
        try:
            await worker.run(self._stop)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not we were cancelled, but something that the worker waited for.
            return error
        except Exception as error:
            return error
        return None if self._stop.is_set() else ReturnedEarlyError()

    async def _back_off(self, worker: _Worker, error: BaseException) -> None:
        delay_s = worker.backoff.next_s()
        worker.restarts += 1
        worker.state = WorkerState.BACKING_OFF
        _log.warning("worker_failed", restart_in_s=delay_s, **_told(worker, error))
        await pause(self._stop, delay_s)


def _told(worker: _Worker, error: BaseException) -> dict[str, str | int]:
    # An exception's text may quote a payload, so its type and place have to do.
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].name}:{frames[-1].lineno}" if frames else ""
    return {
        "worker": worker.name,
        "error": type(error).__name__,
        "at": place,
        "restarts": worker.restarts,
    }
