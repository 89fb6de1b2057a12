"""How far a request is from the limits that it counted against, as header fields.

`RateLimit-Policy` and `RateLimit` are those of draft-ietf-httpapi-ratelimit-headers: the
policy's quota `q` and window `w`, what remains of it, `r`, and the seconds `t` until the running
bucket ends and gives room again.
"""

import math
from collections.abc import Hashable
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from iotflow.domain.limits import RatePolicy
from iotflow.limits.window import SlidingCounts

S = TypeVar("S", bound=Hashable)
Headers = tuple[tuple[bytes, bytes], ...]


class CountedPolicy(Generic[S]):
    """A policy, what its subjects have counted here, and its header, written once."""

    __slots__ = ("counts", "header", "limit", "name", "remaining", "window_s")

    def __init__(self, name: str, rate: RatePolicy, counts: SlidingCounts[S]) -> None:
        self.name = name
        self.limit = rate.limit
        self.window_s = rate.window_s
        self.counts = counts
        self.header = (
            b"ratelimit-policy",
            f'"{name}";q={rate.limit};w={rate.window_s}'.encode("ascii"),
        )
        self.remaining = f'"{name}";r=%d;t=%d'.encode("ascii")


class Standings:
    """The limits that one request counted against.

    The answer is written where the limits are not known, in the layers round the routes: a
    context variable, new for each request, carries them there without a parameter through
    every service.
    """

    __slots__ = ("_least", "_left", "_nearest")

    def __init__(self) -> None:
        self._nearest: CountedPolicy[Any] | None = None
        self._left = 0.0
        self._least = 2.0

    def note(self, policy: CountedPolicy[Any], left: float) -> None:
        """Note what the request has left of a policy. The one nearest to its limit is told."""
        share = left / policy.limit
        if share < self._least:
            self._nearest, self._left, self._least = policy, left, share

    def headers(self, now_s: float) -> Headers:
        """Of the policy nearest to its limit; none where nothing was counted."""
        nearest = self._nearest
        if nearest is None:
            return ()
        resets_in_s = math.ceil(nearest.counts.rest_s(now_s)) or 1
        told = nearest.remaining % (max(0, int(self._left)), resets_in_s)
        return (nearest.header, (b"ratelimit", told))


current_standings: ContextVar[Standings | None] = ContextVar("standings", default=None)
