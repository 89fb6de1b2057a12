"""One time limit for many calls at once."""

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import TypeVar

import msgspec

from iotflow.stores.telemetry.cassandra.failures import TimedOutError

T = TypeVar("T")


class _Call(msgspec.Struct):
    """Somebody who awaits an answer; the task is None once that is over."""

    due_s: float
    task: asyncio.Task[object] | None
    late: bool = False


class Limit:
    """Cancels awaits that take longer than `limit_s`.

    As `asyncio.timeout`, which makes and takes back a timer for each await; here one timer
    watches whoever has waited longest, as all may wait equally long. It costs a fifth.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._calls: deque[_Call] = deque()  # in the order in which they are due
        self._watching = False

    async def within(self, awaited: Awaitable[T]) -> T:
        """What is awaited, if it comes in time. Raises TimedOutError where it does not."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is None:
            raise RuntimeError("a limit of time needs a task")
        cancelled_before = task.cancelling()
        call = _Call(loop.time() + self._limit_s, task)
        calls = self._calls
        calls.append(call)
        if not self._watching:
            self._watch(loop)
        try:
            return await awaited
        except asyncio.CancelledError as error:
            # Somebody else may have cancelled the task as well: that goes on.
            if call.late and task.cancelling() <= cancelled_before + 1:
                raise TimedOutError from error
            raise
        finally:
            if call.late:
                task.uncancel()
            call.task = None
            while calls and calls[0].task is None:
                calls.popleft()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        for call in self._calls:
            if call.due_s > now_s:
                break
            if call.task is not None and not call.late:
                call.late = True
                call.task.cancel()
        else:
            self._watching = False
            return
        self._watching = True
        loop.call_at(call.due_s, self._watch, loop)
