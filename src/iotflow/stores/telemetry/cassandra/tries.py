"""Calls of the driver that may never be answered."""

import asyncio
from asyncio import FIRST_COMPLETED
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from iotflow.stores.telemetry.cassandra.failures import CALLERS_FAULT, FAILURES, TimedOutError

T = TypeVar("T")

_TRIES = 3


async def within(limit_s: float, call: Awaitable[T]) -> T:
    """What the driver answers in time. Its own limit was passed by seconds next to a frozen node,
    and with speculative execution no answer came at all. Cancelling a call is safe.

    Raises:
        TimedOutError: it did not answer.
    """
    try:
        async with asyncio.timeout(limit_s):
            return await call
    except TimeoutError as error:
        raise TimedOutError from error


class SideBySide:
    """Tries that wait beside each other, because one of them may wait for a frozen node.

    The driver sends a try to any replica, and does not say to which, so one that is made again
    may meet the same node; of several at once hardly all do. At most `at_most` are added to
    those that callers make anyway: what is slow because of too much to do must not get more.
    A try has `alone_s` before the next begins.
    """

    def __init__(self, at_most: int = 64, alone_s: float = 0.25) -> None:
        self._at_most = at_most
        self._alone_s = alone_s
        self._added = 0

    async def first_answer(self, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The answer that comes first; up to three tries, each begun where none came soon.

        Raises:
            Exception: what the try raised that ended last, or one whose call itself is at fault.
        """
        tries = [asyncio.create_task(begin())]
        try:
            for _ in range(_TRIES - 1):
                waiting = [each for each in tries if not each.done()]
                if waiting:
                    await asyncio.wait(waiting, timeout=self._alone_s, return_when=FIRST_COMPLETED)
                if _answered(tries) or self._added >= self._at_most:
                    break
                self._added += 1
                tries.append(asyncio.create_task(begin()))
            return await _first_answer(tries)
        finally:
            self._added -= len(tries) - 1
            for each in tries:
                each.cancel()
            await asyncio.gather(*tries, return_exceptions=True)


def _answered(tries: Sequence[asyncio.Task[Any]]) -> bool:
    return any(each.done() and each.exception() is None for each in tries)


async def _first_answer(tries: Sequence[Awaitable[T]]) -> T:
    failure: Exception = TimedOutError()
    for each in asyncio.as_completed(tries):
        try:
            return await each
        except FAILURES as error:
            if isinstance(error, CALLERS_FAULT):
                raise
            failure = error
    raise failure
