"""Look-ups of single keys, asked of a server together."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from itertools import islice
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Together(Generic[K, V]):
    """Turns look-ups at the same time into few calls of `ask`, which leaves out what is not there.

    At most `at_once` calls are under way; whoever asks meanwhile is in the next one, with at
    most `most` others. So a quiet server is asked at once, and a busy one for many at a time.
    Nobody waits for longer than `limit_s`, also not for the call before theirs.
    """

    def __init__(
        self,
        ask: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]],
        *,
        at_once: int = 2,
        most: int = 500,
        limit_s: float = 5.0,
    ) -> None:
        self._ask = ask
        self._at_once = at_once
        self._most = most
        self._limit_s = limit_s
        self._waiting: dict[K, asyncio.Future[V | None]] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._beginning = False

    async def get(self, key: K) -> V | None:
        """What `ask` finds, or raises. A caller that is cancelled ends nobody else's look-up.

        Raises:
            TimeoutError: there is no answer in time.
        """
        found = self._waiting.get(key)
        if found is None:
            found = asyncio.get_running_loop().create_future()
            self._waiting[key] = found
            self._begin()
        async with asyncio.timeout(self._limit_s):
            return await asyncio.shield(found)

    def _begin(self) -> None:
        # A call takes its keys when it first runs: then those of the same turn are all there.
        if self._waiting and not self._beginning and len(self._calls) < self._at_once:
            self._beginning = True
            call = asyncio.create_task(self._call(), name="look-up")
            self._calls.add(call)
            call.add_done_callback(self._ended)

    async def _call(self) -> None:
        self._beginning = False
        keys = list(islice(self._waiting, self._most))
        wanted = {key: self._waiting.pop(key) for key in keys}
        self._begin()
        try:
            found = await self._ask(keys)
        except Exception as error:
            for future in wanted.values():
                future.set_exception(error)
                future.exception()  # perhaps nobody waits any more, and that is no fault
        except BaseException:
            for future in wanted.values():
                future.cancel()
            raise
        else:
            for key, future in wanted.items():
                future.set_result(found.get(key))

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._begin()
