"""Waiting between attempts."""

import asyncio
from contextlib import suppress


class Backoff:
    """Delays that double from `first_s` to `cap_s`."""

    def __init__(self, first_s: float = 0.2, cap_s: float = 30.0) -> None:
        self._first_s = first_s
        self._cap_s = cap_s
        self._next_s = first_s

    def next_s(self) -> float:
        """The delay before the next attempt."""
        delay_s = self._next_s
        self._next_s = min(delay_s * 2, self._cap_s)
        return delay_s

    def reset(self) -> None:
        """Begin again at `first_s`: something has worked."""
        self._next_s = self._first_s


async def idle(stop: asyncio.Event, delay_s: float) -> None:
    """Wait `delay_s` until the next round of what is done again and again, or until `stop`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(delay_s):
            await stop.wait()


async def pause(stop: asyncio.Event, delay_s: float) -> None:
    """Wait `delay_s`, or until `stop` is set. Once it is set, wait in full.

    So the signal to stop ends a long wait at once, and attempts made while stopping
    still keep their distance.
    """
    if stop.is_set():
        await asyncio.sleep(delay_s)
    else:
        await idle(stop, delay_s)
