"""Reading without holding up the event loop, and without waiting for the interpreter's lock.

A statement gives that lock away at every row, and next to a busy loop a thread waits for it
again for up to the switch interval each time (see upserts.py). So:

* A small statement runs right on the event loop, on a connection of its own. A progress handler
  ends it when it turns out not to be small.
* Any other runs in a thread, once, up to its first row; everything is materialised by then, with
  the lock given away. Its rows are then fetched on the loop, in slices.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import islice, starmap
from typing import Any, TypeVar

import apsw

from iotflow.errors import OverloadedError
from iotflow.stores.sqlite_steps import StepLimit
from iotflow.stores.telemetry.sqlite.driver import BUSY, Connection, Parameters, Rows, translated

T = TypeVar("T")

SMALL_STEPS = 60_000
"""What the event loop is held up for a statement (StepLimit)."""

# Between two looks at whether anybody still waits for a large statement: some 50 ms.
_STEPS_A_LOOK = 4_000_000
_SLICE_ROWS = 500


class Readers:
    """Reads on the `inline` connection, or on one of `pool`, each with a thread.

    At most `max_waiting` large statements wait for a thread; more raise OverloadedError.
    """

    def __init__(self, inline: Connection, pool: Sequence[Connection], max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._waiting = 0
        self._limit = StepLimit(SMALL_STEPS)
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._inline = inline
        self._inline.set_progress_handler(self._limit, StepLimit.EVERY)
        self._threads = len(pool)
        self._executor = ThreadPoolExecutor(
            len(pool), thread_name_prefix="iotflow-telemetry-reader"
        )
        self._free: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
        for connection in pool:
            self._free.put_nowait(connection)

    async def close(self) -> None:
        """End what is running and close all connections."""
        self._closing = True
        self._inline.close()
        for _ in range(self._threads):
            (await self._free.get()).close()
        self._executor.shutdown(wait=False)

    async def rows(self, sql: str, parameters: Parameters, convert: Callable[..., T]) -> list[T]:
        """Each row of a SELECT as `convert(*columns)`.

        Raises:
            StoreUnavailableError: the file cannot be read.
            OverloadedError: too many large statements wait.
        """
        found = self.small(sql, parameters, convert)
        return await self.large(sql, parameters, convert) if found is None else found

    def small(self, sql: str, parameters: Parameters, convert: Callable[..., T]) -> list[T] | None:
        """`rows` at once, or None where it would take more than SMALL_STEPS."""
        self._limit.begin()
        try:
            rows = self._inline.execute(sql, parameters).fetchall()
        except (apsw.InterruptError, *BUSY):
            return None
        except apsw.Error as error:
            raise translated(error) from error
        return list(starmap(convert, rows))

    async def large(self, sql: str, parameters: Parameters, convert: Callable[..., T]) -> list[T]:
        """`rows` in a thread. Ends the statement soon where its caller is cancelled."""
        connection = await self._free_connection()
        wanted = True
        connection.set_progress_handler(lambda: self._closing or not wanted, _STEPS_A_LOOK)
        job = self._executor.submit(connection.execute, _materialised(sql), parameters)
        try:
            found: list[T] = []
            with closing(await asyncio.wrap_future(job)) as cursor:
                while rows := list(islice(cursor, _SLICE_ROWS)):
                    found += starmap(convert, rows)
                    await asyncio.sleep(0)
            return found
        except apsw.Error as error:
            raise translated(error) from error
        finally:
            wanted = False
            self._give_back(connection, job)

    async def _free_connection(self) -> Connection:
        if self._free.empty() and self._waiting >= self._max_waiting:
            raise OverloadedError("reading")
        self._waiting += 1
        try:
            return await self._free.get()
        finally:
            self._waiting -= 1

    def _give_back(self, connection: Connection, job: Future[Rows]) -> None:
        """Free a connection, if its caller was cancelled only after its statement ended."""
        if job.done():
            self._free.put_nowait(connection)
            return

        def ended(job: Future[Any]) -> None:
            if not job.cancelled() and job.exception() is None:
                job.result().close()
            with suppress(RuntimeError):  # the loop is closed: nobody will read again
                self._loop.call_soon_threadsafe(self._free.put_nowait, connection)

        job.add_done_callback(ended)


def _materialised(sql: str) -> str:
    """The same rows in the same order, all of them found before the first is given out."""
    return f"WITH found AS MATERIALIZED ({sql}) SELECT * FROM found"  # noqa: S608
