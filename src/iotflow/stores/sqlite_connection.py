"""What SQLAlchemy's dialect for aiosqlite asks of a connection, with few changes of thread.

aiosqlite hands each call over to a thread: a statement is six, and next to a busy event loop each
waits for the interpreter's lock, twice. Here a SELECT runs at once on the event loop. A progress
handler ends the one that turns out not to be brief, and that goes to a thread like all that writes
or waits for a lock or the disk, with its rows, as one call.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from iotflow.stores.sqlite_steps import StepLimit

T = TypeVar("T")

BRIEF_STEPS = 100_000
"""What the event loop is held up for a statement (StepLimit)."""


class _Answer(NamedTuple):
    """What a statement found, or what it did."""

    description: Any = None
    rowcount: int = -1
    lastrowid: int | None = None
    rows: Sequence[Any] = ()


async def connect(path: Path) -> "Connection":
    """A connection without transactions of the driver's: each statement is one, or its caller
    begins one."""
    raw = await asyncio.to_thread(
        sqlite3.connect, path, isolation_level=None, check_same_thread=False
    )
    return Connection(raw)


class Connection:
    """A connection, with a thread of its own for what is not brief."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._connection = raw  # the dialect, too, looks whether there is one
        self._thread = ThreadPoolExecutor(1, "iotflow-sqlite")
        # Also what a cancelled caller left to the thread. Changed on both sides: as a set, at once.
        self._jobs: set[Future[Any]] = set()
        self._limit = StepLimit(BRIEF_STEPS)
        self._is_closed = False

    def cursor(self) -> "Cursor":
        return Cursor(self)

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> _Answer:
        """Run a statement, with all its rows."""
        if not self._jobs and not self._is_closed and statement.lstrip()[:6].upper() == "SELECT":
            found = self._briefly(statement, parameters)
            if found is not None:
                return found
        return await self._in_thread(_answer, self._connection.execute, statement, parameters)

    async def executemany(self, statement: str, parameters: Sequence[Any]) -> _Answer:
        """Run a statement for each of many parameters."""
        return await self._in_thread(_answer, self._connection.executemany, statement, parameters)

    async def create_function(self, *arguments: Any, **options: Any) -> None:
        self._connection.create_function(*arguments, **options)

    async def commit(self) -> None:
        if self._jobs or self._connection.in_transaction:
            await self._in_thread(self._connection.commit)

    async def rollback(self) -> None:
        if self._jobs or self._connection.in_transaction:
            await self._in_thread(self._connection.rollback)

    async def close(self) -> None:
        """End what nobody waits for any more, and close; once more is nothing."""
        closed = self._begin_to_close()
        if closed is not None:
            await asyncio.wrap_future(closed)

    def stop(self) -> None:
        """`close` for whoever cannot wait."""
        self._begin_to_close()

    def _begin_to_close(self) -> Future[None] | None:
        if self._is_closed:
            return None
        self._is_closed = True
        if self._jobs:
            self._connection.interrupt()
        closed = self._thread.submit(_close, self._connection)
        self._thread.shutdown(wait=False)
        return closed

    async def _in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        if self._is_closed:
            raise sqlite3.OperationalError("connection closed")  # as the dialect knows it
        job = self._thread.submit(call, *arguments)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return await asyncio.wrap_future(job)

    def _briefly(self, statement: str, parameters: Sequence[Any]) -> _Answer | None:
        """`execute` at once, or None where it would take more than BRIEF_STEPS."""
        self._limit.begin()
        self._connection.set_progress_handler(self._limit, StepLimit.EVERY)
        try:
            return _answer(self._connection.execute, statement, parameters)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                return None
            raise
        finally:
            self._connection.set_progress_handler(None, 0)


class Cursor:
    """One statement at a time, and the rows that it found."""

    arraysize = 1

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._keep(_Answer())

    async def __aenter__(self) -> "Cursor":
        return self

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        self._keep(await self._connection.execute(statement, parameters))

    async def executemany(self, statement: str, parameters: Sequence[Any]) -> None:
        self._keep(await self._connection.executemany(statement, parameters))

    async def fetchall(self) -> Sequence[Any]:
        return self._rows

    async def close(self) -> None:
        """Nothing is held open."""

    def _keep(self, answer: _Answer) -> None:
        self.description, self.rowcount, self.lastrowid, self._rows = answer


def _answer(
    run: Callable[..., sqlite3.Cursor], statement: str, parameters: Sequence[Any]
) -> _Answer:
    cursor = run(statement, parameters)
    rows = cursor.fetchall()
    return _Answer(cursor.description, cursor.rowcount, cursor.lastrowid, rows)


def _close(connection: sqlite3.Connection) -> None:
    # An interrupt lasts until the next statement begins. Closing would leave the log uncopied.
    connection.execute("SELECT 1")
    connection.close()
