"""Two-bucket sliding windows: what the subjects of one policy have used lately."""

import math

from iotflow.stores.cache.expiring import free_some


class SlidingCounts:
    """Units that subjects counted in the running bucket and in the one before it.

    The estimate of what a subject used in the last `window_s` seconds is its running bucket plus
    the share of the previous one that the window still covers. Buckets begin at multiples of
    `window_s` of the wall clock, for all subjects (and all processes) at once. So a count costs
    its subject a place in a dictionary, and what is spent goes without being looked for.

    At most `capacity` subjects have a count in a bucket. Full, the one that came last makes room,
    and `evictions` counts it: those that are counted for longer stay limited.
    """

    def __init__(self, window_s: int, capacity: int) -> None:
        self.window_s = window_s
        self.evictions = 0
        self._capacity = capacity
        self._begins_s = 0
        self._current: dict[str, int] = {}
        self._previous: dict[str, int] = {}
        self._gone: dict[str, int] = {}

    def __len__(self) -> int:
        """Counts that weigh."""
        return len(self._current) + len(self._previous)

    def used(self, subject: str, now_s: float) -> float:
        """What a subject has used of the window that ends at `now_s`, epoch seconds."""
        # Written out, without a call in between: this runs for every policy of every request.
        elapsed_s = now_s - self._begins_s
        if not 0 <= elapsed_s < self.window_s:
            elapsed_s = self._turn(now_s)
        used: float = self._current.get(subject, 0)
        if subject in self._previous:
            used += self._previous[subject] * (1 - elapsed_s / self.window_s)
        return used

    def _turn(self, now_s: float) -> float:
        begins_s = int(now_s // self.window_s) * self.window_s
        if begins_s == self._begins_s - self.window_s:
            return 0.0  # a clock that was set back a little: nobody's counts end with that
        is_next = begins_s == self._begins_s + self.window_s
        self._gone = self._previous if is_next else self._current
        self._previous, self._current = (self._current if is_next else {}), {}
        self._begins_s = begins_s
        return now_s - begins_s

    def of(self, subject: str) -> tuple[int, int]:
        """What a subject has counted in the running bucket, and in the one before."""
        return self._current.get(subject, 0), self._previous.get(subject, 0)

    def rest_s(self, now_s: float) -> float:
        """Seconds until the running bucket ends."""
        return max(0.0, self._begins_s + self.window_s - now_s)

    def count(self, subject: str, cost: int) -> None:
        """Count units in the running bucket."""
        current = self._current
        if subject in current:
            current[subject] += cost
        else:
            if len(current) >= self._capacity:
                current.popitem()
                self.evictions += 1
            current[subject] = cost
        if self._gone:
            self._gone = free_some(self._gone)

    def learn(self, subject: str, current: int, previous: int) -> bool:
        """Raise a subject's counts to those that others know of, where it has any here. Whether
        there was anything to raise."""
        own = self._current.get(subject)
        if own is None:
            return False
        knows_more = current > own
        if knows_more:
            self._current[subject] = current
        if previous > self._previous.get(subject, 0):
            self._previous[subject] = previous
            knows_more = True
        return knows_more

    def retry_after_s(self, subject: str, limit: int, cost: int, now_s: float) -> int:
        """Whole seconds until `cost` more would fit, if nothing else comes meanwhile."""
        current, previous = self.of(subject)
        elapsed_s = now_s - self._begins_s
        room = limit - current - cost
        if room >= 0 and previous:
            wait = (1 - room / previous) * self.window_s - elapsed_s
        else:
            # Only the next bucket helps, where today's current weighs as previous.
            share = max(0.0, 1 - max(0, limit - cost) / max(1, current))
            wait = self.window_s - elapsed_s + share * self.window_s
        return max(1, math.ceil(wait))
