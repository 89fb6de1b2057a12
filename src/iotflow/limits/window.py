"""Two-bucket sliding windows: the arithmetic of one, and those of all subjects."""

import math
from collections import OrderedDict
from dataclasses import dataclass

_SWEPT_PER_NEW = 2


@dataclass(slots=True)
class SlidingWindow:
    """Units counted in the running bucket and the one before it.

    The estimate of what was used in the last `window_s` seconds is the running bucket
    plus the share of the previous one that the window still covers.
    """

    window_s: int
    bucket: int = 0
    previous: int = 0
    current: int = 0

    def turn(self, now_s: float) -> float:
        """Move on to the bucket of `now_s`; returns the seconds since it began."""
        bucket = int(now_s // self.window_s)
        if bucket != self.bucket:
            self.previous = self.current if bucket == self.bucket + 1 else 0
            self.current = 0
            self.bucket = bucket
        return now_s - bucket * self.window_s

    def used(self, elapsed_s: float) -> float:
        return self.previous * (1 - elapsed_s / self.window_s) + self.current

    def retry_after_s(self, limit: int, cost: int, elapsed_s: float) -> int:
        """Whole seconds until `cost` more would fit, if nothing else comes meanwhile."""
        room = limit - self.current - cost
        if room >= 0 and self.previous:
            wait = (1 - room / self.previous) * self.window_s - elapsed_s
        else:
            # Only the next bucket helps, where today's current weighs as previous.
            share = max(0.0, 1 - max(0, limit - cost) / max(1, self.current))
            wait = self.window_s - elapsed_s + share * self.window_s
        return max(1, math.ceil(wait))

    def is_spent(self, now_s: float) -> bool:
        """Whether what was counted weighs nothing any more."""
        return now_s >= (self.bucket + 2) * self.window_s


class SlidingWindows:
    """The windows of at most `capacity` subjects.

    Each new subject pushes out what is spent of the two that were looked at longest ago. Full,
    the one that is next in line goes, and `evictions` counts it.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._windows: OrderedDict[str, SlidingWindow] = OrderedDict()
        self.evictions = 0
        self.get = self._windows.get
        """The subject's window, or None. Without a call in between: every request asks."""

    def __len__(self) -> int:
        return len(self._windows)

    def begin(self, subject: str, window_s: int, now_s: float) -> SlidingWindow:
        """An empty window for a subject that has none."""
        for _ in range(min(_SWEPT_PER_NEW, len(self._windows))):
            other, window = self._windows.popitem(last=False)
            if not window.is_spent(now_s):
                self._windows[other] = window
        if len(self._windows) >= self._capacity:
            self._windows.popitem(last=False)
            self.evictions += 1
        window = self._windows[subject] = SlidingWindow(window_s)
        return window
