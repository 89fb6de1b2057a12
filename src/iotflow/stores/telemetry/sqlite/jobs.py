"""What waits for the writer, and how it gets from the event loop to the writer's thread."""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue

import msgspec

from iotflow.domain.points import Submission
from iotflow.stores.telemetry.sqlite.deletes import RangeDelete

_GROUP_SUBMISSIONS = 256
_GROUP_POINTS = 20_000


class Write(msgspec.Struct, frozen=True, gc=False):
    submission: Submission
    future: asyncio.Future[None]


class Delete(msgspec.Struct, frozen=True, gc=False):
    delete: RangeDelete
    future: asyncio.Future[int]


class Merge(msgspec.Struct, frozen=True, gc=False):
    """What a reader waits for: its devices' points in their table."""

    device_ids: Sequence[int]
    future: asyncio.Future[None]


Change = Write | Delete
"""What has to be done in the order in which it was asked for."""

Job = Change | Merge


class Jobs:
    """Jobs that the event loop gives and one thread takes.

    Changes are taken in the order in which they were given. Merges stand beside them, for what a
    reader waits for is durable already: all that wait are taken at once.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._gathered: list[Change | None] = []
        self._is_waking = False
        self._queue: SimpleQueue[list[Change | None]] = SimpleQueue()
        self._changes: deque[Change | None] = deque()
        self._merges: deque[Merge] = deque()
        self._is_closed = False

    # On the loop. The thread gets all jobs of a turn of the loop together: each time that it
    # wakes costs the loop a system call and a wait for the interpreter's lock.

    def put(self, change: Change) -> None:
        """Give a change to the thread."""
        self._gathered.append(change)
        if not self._is_waking:
            self._wake()

    def put_merge(self, merge: Merge) -> None:
        """Give a merge to the thread."""
        self._merges.append(merge)
        if not self._is_waking:
            self._wake()

    def close(self) -> None:
        """Say that no more come."""
        self._gathered.append(None)
        self._hand_over()

    def _wake(self) -> None:
        self._is_waking = True
        self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._is_waking = False
        self._queue.put(self._gathered)
        self._gathered = []

    # In the thread.

    @property
    def is_done(self) -> bool:
        """Whether all were taken, and no more come."""
        return self._is_closed and not self._changes and self._queue.empty()

    def wait(self, limit_s: float | None) -> None:
        """Return when there is something to take, or after `limit_s`."""
        with suppress(Empty):
            if not self._changes:
                self._changes += self._queue.get(timeout=limit_s)
        self._receive()

    def _receive(self) -> None:
        with suppress(Empty):
            while True:
                self._changes += self._queue.get_nowait()

    def take_merges(self) -> Sequence[Merge]:
        """All that wait."""
        return [self._merges.popleft() for _ in range(len(self._merges))]

    def take_changes(self) -> Sequence[Change]:
        """Writes that become one transaction, or one delete, or nothing."""
        changes, group, points = self._changes, list[Change](), 0
        while changes and isinstance(change := changes[0], Write):
            group.append(change)
            changes.popleft()
            points += len(change.submission.points)
            if len(group) == _GROUP_SUBMISSIONS or points >= _GROUP_POINTS:
                break
        if group or not changes:
            return group
        other = changes.popleft()
        if other is None:
            self._is_closed = True
            return ()
        return (other,)

    def put_back(self, delete: Delete) -> None:
        """Have a delete go on after those who came meanwhile."""
        self._receive()
        self._changes.append(delete)
