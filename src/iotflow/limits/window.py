"""Two-bucket sliding windows: what the subjects of one policy have used lately."""

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Generic, TypeVar, final

from iotflow.stores.cache.expiring import free_some
from iotflow.stores.cache.pages import IN_PAGE, PAGE, PAGE_BITS

S = TypeVar("S", bound=Hashable)

Page = list[int]


class SlidingCounts(ABC, Generic[S]):
    """Units that subjects counted in the running bucket and in the one before it.

    The estimate of what a subject used in the last `window_s` seconds is its running bucket plus
    the share of the previous one that the window still covers. Buckets begin at multiples of
    `window_s` of the wall clock, for all subjects (and all processes) at once. So a count costs
    its subject a place in a table, and what is spent goes without being looked for.

    What counts a bucket holds is bounded. Full, those that came last make room, and `evictions`
    counts them: those that are counted for longer stay limited.
    """

    def __init__(self, window_s: int) -> None:
        self.window_s = window_s
        self.evictions = 0
        self._begins_s = 0

    @abstractmethod
    def __len__(self) -> int:
        """Counts that weigh."""

    @abstractmethod
    def of(self, subject: S) -> tuple[int, int]:
        """What a subject has counted in the running bucket, and in the one before."""

    @abstractmethod
    def count(self, subject: S, cost: int) -> None:
        """Count units in the running bucket."""

    @abstractmethod
    def _set(self, subject: S, current: int, previous: int) -> None:
        """Set the counts of a subject that has one in the running bucket."""

    @abstractmethod
    def _begin(self, *, is_next: bool) -> None:
        """Begin a bucket: the next one after the running one, or one much later."""

    def used(self, subject: S, now_s: float) -> float:
        """What a subject has used of the window that ends at `now_s`, epoch seconds."""
        elapsed_s = now_s - self._begins_s
        if not 0 <= elapsed_s < self.window_s:
            elapsed_s = self._turn(now_s)
        current, previous = self.of(subject)
        if not previous:
            return current
        return current + previous * (1 - elapsed_s / self.window_s)

    def _turn(self, now_s: float) -> float:
        begins_s = int(now_s // self.window_s) * self.window_s
        if begins_s == self._begins_s - self.window_s:
            return 0.0  # a clock that was set back a little: nobody's counts end with that
        self._begin(is_next=begins_s == self._begins_s + self.window_s)
        self._begins_s = begins_s
        return now_s - begins_s

    def rest_s(self, now_s: float) -> float:
        """Seconds until the running bucket ends."""
        return max(0.0, self._begins_s + self.window_s - now_s)

    def learn(self, subject: S, current: int, previous: int) -> bool:
        """Raise a subject's counts to those that others know of, where it has any here. Whether
        there was anything to raise."""
        own = self.of(subject)
        known = (max(current, own[0]), max(previous, own[1]))
        if not own[0] or known == own:
            return False
        self._set(subject, *known)
        return True

    def retry_after_s(self, subject: S, limit: int, cost: int, now_s: float) -> int:
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


@final
class CallerCounts(SlidingCounts[str]):
    """Of whoever calls, by a text; at most `capacity` in a bucket."""

    def __init__(self, window_s: int, capacity: int) -> None:
        super().__init__(window_s)
        self._capacity = capacity
        self._current: dict[str, int] = {}
        self._previous: dict[str, int] = {}
        self._gone: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._current) + len(self._previous)

    def of(self, subject: str) -> tuple[int, int]:
        return self._current.get(subject, 0), self._previous.get(subject, 0)

    def count(self, subject: str, cost: int) -> None:
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

    def _set(self, subject: str, current: int, previous: int) -> None:
        self._current[subject] = current
        if previous:
            self._previous[subject] = previous

    def _begin(self, *, is_next: bool) -> None:
        self._gone = self._previous if is_next else self._current
        self._previous, self._current = (self._current if is_next else {}), {}


@final
class DeviceCounts(SlidingCounts[int]):
    """Of devices, by their ids; at most `max_pages` in a bucket (see pages.py)."""

    def __init__(self, window_s: int, max_pages: int) -> None:
        super().__init__(window_s)
        self._max_pages = max_pages
        self._current: dict[int, Page] = {}
        self._previous: dict[int, Page] = {}

    def __len__(self) -> int:
        return sum(
            PAGE - page.count(0)
            for pages in (self._current, self._previous)
            for page in pages.values()
        )

    def of(self, subject: int) -> tuple[int, int]:
        # Without calls: this runs for every policy of every submission.
        number, place = subject >> PAGE_BITS, subject & IN_PAGE
        current, previous = self._current, self._previous
        return (
            current[number][place] if number in current else 0,
            previous[number][place] if number in previous else 0,
        )

    def count(self, subject: int, cost: int) -> None:
        number = subject >> PAGE_BITS
        if number not in self._current:
            self._add_page(number)
        self._current[number][subject & IN_PAGE] += cost

    def _add_page(self, number: int) -> None:
        current = self._current
        if len(current) >= self._max_pages:
            _, forgotten = current.popitem()
            self.evictions += PAGE - forgotten.count(0)
        current[number] = [0] * PAGE

    def _set(self, subject: int, current: int, previous: int) -> None:
        number, place = subject >> PAGE_BITS, subject & IN_PAGE
        self._current[number][place] = current
        if previous:
            self._previous.setdefault(number, [0] * PAGE)[place] = previous

    def _begin(self, *, is_next: bool) -> None:
        self._previous, self._current = (self._current if is_next else {}), {}
