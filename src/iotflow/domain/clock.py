"""Clocks: the wall clock, write marks, and timestamps for points that came without one."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

WallClock = Callable[[], float]
"""Epoch seconds. Passed in, so that tests need no sleep."""

system_clock: WallClock = time.time

_FORGOTTEN_PER_CALL = 2


@dataclass(frozen=True, slots=True)
class Lane:
    """The share of all timestamps that one process may issue.

    Processes that run at once hold different lanes, and a process issues only
    numbers n with n % count == index, so no two ever issue the same (as
    snowflake ids do with their worker bits).
    """

    index: int
    count: int

    def at_or_after(self, number: int) -> int:
        """The lane's first number that is not below `number`."""
        return number + (self.index - number) % self.count


LaneSource = Callable[[], Lane]
"""The lane of this process, as long as its lease holds."""


class WriteClock:
    """Write marks in epoch microseconds: strictly rising within a process, in its lane.

    A mark orders writes of one point (the higher wins) and names a submission.
    """

    def __init__(self, lane: LaneSource, now: WallClock = system_clock) -> None:
        self._lane = lane
        self._now = now
        self._last_us = 0

    def next_us(self) -> int:
        """The next mark. Raises what the lane's source raises while it has no lane."""
        candidate = max(int(self._now() * 1_000_000), self._last_us + 1)
        self._last_us = self._lane().at_or_after(candidate)
        return self._last_us


class DeviceClock:
    """Gives points that came without a timestamp one that is unique for their device.

    Milliseconds in the process's lane that never repeat or go backwards for a
    device. One that was forgotten starts above everything that was ever issued to
    the forgotten. Those whose last one lies behind the clock are, after a second:
    nothing is lost with them. Beyond `capacity` the longest silent one is, too.
    """

    MAX_AHEAD_MS = 1_000
    # A clock that is set back by less makes no other device start ahead of it.
    _KEPT_MS = 1_000

    def __init__(
        self, lane: LaneSource, now: WallClock = system_clock, capacity: int = 100_000
    ) -> None:
        self._lane = lane
        self._now = now
        self._capacity = capacity
        self._last_ms: OrderedDict[int, int] = OrderedDict()
        self._floor_ms = 0
        # Until then nobody is silent for long enough to be forgotten.
        self._calm_until_ms = 0

    def __len__(self) -> int:
        """How many devices are remembered."""
        return len(self._last_ms)

    def next_ms(self, device_id: int) -> int | None:
        """The next timestamp, or None where it would run over a second ahead of the clock."""
        lane = self._lane()
        now_ms = int(self._now() * 1000)
        last_ms = self._last_ms.pop(device_id, self._floor_ms)
        issued_ms = lane.at_or_after(max(now_ms, last_ms + 1))
        if issued_ms > now_ms + self.MAX_AHEAD_MS:
            self._last_ms[device_id] = last_ms
            return None
        self._last_ms[device_id] = issued_ms
        if now_ms > self._calm_until_ms or len(self._last_ms) > self._capacity:
            self._forget(now_ms - self._KEPT_MS)
        return issued_ms

    def _forget(self, past_ms: int) -> None:
        """Forget those silent since `past_ms` that are next in turn, and whoever is too many."""
        for _ in range(_FORGOTTEN_PER_CALL):
            device_id, last_ms = next(iter(self._last_ms.items()))
            if last_ms >= past_ms and len(self._last_ms) <= self._capacity:
                self._calm_until_ms = last_ms + self._KEPT_MS
                return
            del self._last_ms[device_id]
            self._floor_ms = max(self._floor_ms, last_ms)
