"""The arithmetic of a two-bucket sliding window."""

import math
from dataclasses import dataclass


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
