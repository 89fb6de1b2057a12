"""How much there is to do, and whether it is too much."""

import asyncio
from collections import deque
from collections.abc import Callable


class Turn:
    """A turn of the event loop, in which requests begin for at most about `limit_s`.

    All that came while a turn lasted would begin in the next one. Thirty that read a day of
    points were a fifth of a second, in which nobody's commit is told and nobody is accepted.
    """

    __slots__ = ("_clock", "_ends_s", "_has_begun", "_limit_s")

    def __init__(self, limit_s: float, clock: Callable[[], float]) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._has_begun = False
        self._ends_s = 0.0

    def is_over(self) -> bool:
        """Whether a request that is to begin now is to begin in a later turn."""
        now_s = self._clock()
        if self._has_begun:
            return now_s >= self._ends_s
        self._has_begun = True
        self._ends_s = now_s + self._limit_s
        asyncio.get_running_loop().call_soon(self._end)
        return False

    def _end(self) -> None:
        self._has_begun = False


class Load:
    """Requests in flight, and how many may be."""

    __slots__ = ("done", "in_flight", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self.done = 0
        """Those that have left, ever."""


class Gate:
    """Lets in while the load has room; and always `reserved`, whatever the others of it do."""

    __slots__ = ("in_flight", "load", "reserved")

    def __init__(self, load: Load, reserved: int = 0) -> None:
        self.load = load
        self.reserved = min(reserved, load.limit)
        self.in_flight = 0

    def is_full(self) -> bool:
        load = self.load
        return load.in_flight >= load.limit and self.in_flight >= self.reserved

    def enter(self) -> None:
        self.in_flight += 1
        self.load.in_flight += 1

    def leave(self) -> None:
        self.in_flight -= 1
        self.load.in_flight -= 1


class Pace:
    """Keeps the mean time of requests at `max_mean_s` where more come than can be done.

    By Little's law that time is what is in flight over what is done in a second, and before it
    there is the wait for the event loop. While both together stay longer the load's limit is what
    can be done in the rest of `max_mean_s`, though never below `LEAST`; once it is half of that
    the limit rises again, up to what it was.

    Where some are refused anyway, those let in are to be quick: if it is the event loop that has
    too much to do, the limit goes on falling until a turn of it is short. (What waits for a store
    would only be kept from it.)
    """

    LEAST = 32

    _SHORT_TURN_S = 0.01
    _LOOK_S = 0.1
    _GAP_S = 1.0
    # Half a second: a hiccup (a collection of garbage, a slow disk) is over sooner.
    _LOOKS = 5

    __slots__ = ("_load", "_looks", "_max_mean_s", "_most", "_slow_looks", "_wait_s")

    def __init__(self, load: Load, max_mean_s: float) -> None:
        self._load = load
        self._most = load.limit
        self._max_mean_s = max_mean_s
        # When it looked, and how many were done by then.
        self._looks = deque([(float("-inf"), 0)], maxlen=self._LOOKS)
        self._slow_looks = 0
        self._wait_s = 0.0

    def adjust(self, now_s: float, waited_s: float) -> None:
        """Look at the load, if it is time to, and set its limit.

        `waited_s` is how long the request that comes now has waited for its turn.
        """
        since_s = now_s - self._looks[-1][0]
        if since_s < self._LOOK_S:
            return
        if since_s > self._GAP_S:  # nobody came, which says nothing of how quick it is
            self._looks.clear()
            self._slow_looks = 0
        else:
            self._wait_s += (waited_s - self._wait_s) / self._LOOKS
            self._set_limit(now_s)
        self._looks.append((now_s, self._load.done))

    def _set_limit(self, now_s: float) -> None:
        load = self._load
        lately, now = (self._fitting(look, now_s) for look in (self._looks[0], self._looks[-1]))
        if load.in_flight > max(lately, now):
            self._slow_looks += 1
            if self._slow_looks > self._LOOKS:
                load.limit = min(load.limit, max(int(lately), self.LEAST))
            return
        self._slow_looks = 0
        if load.limit < self._most and self._wait_s > 2 * self._SHORT_TURN_S:
            load.limit = min(load.limit, max(load.limit * 3 // 4, self.LEAST))
        elif load.in_flight <= lately / 2 and self._wait_s <= self._SHORT_TURN_S:
            load.limit = min(load.limit + load.limit // 8 + 1, self._most)

    def _fitting(self, look: tuple[float, int], now_s: float) -> float:
        """How many are done in the time that is left, at the rate since that look."""
        looked_s, done = look
        left_s = max(0.0, self._max_mean_s - self._wait_s)
        return (self._load.done - done) / (now_s - looked_s) * left_s


class Lateness:
    """Whether requests wait for their turn longer than `limit_s`, and have for a while.

    A request waits from when its headers are there for what the event loop has to do before.
    """

    _LASTING_S = 0.5
    _CALM_S = 1.0

    __slots__ = ("_last_s", "_limit_s", "_since_s")

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._since_s = self._last_s = float("-inf")

    def is_late(self, waited_s: float, now_s: float) -> bool:
        if waited_s < self._limit_s:
            return False
        if now_s - self._last_s > self._CALM_S:
            self._since_s = now_s
        self._last_s = now_s
        return now_s - self._since_s > self._LASTING_S
