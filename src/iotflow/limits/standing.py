"""How far a request is from the limits that it counted against, as header fields.

`RateLimit-Policy` and `RateLimit` are those of draft-ietf-httpapi-ratelimit-headers: the
policy's quota `q` and window `w`, what remains of it, `r`, and the seconds `t` until the running
bucket ends and gives room again.
"""

import math
from contextvars import ContextVar

from iotflow.domain.limits import RatePolicy
from iotflow.limits.window import SlidingWindow

Headers = tuple[tuple[bytes, bytes], ...]


class NamedPolicy:
    """A policy with its header, written once."""

    __slots__ = ("header", "limit", "name", "rate", "remaining", "window_s")

    def __init__(self, name: str, rate: RatePolicy) -> None:
        self.name = name
        self.rate = rate
        self.limit = rate.limit
        self.window_s = rate.window_s
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

    __slots__ = ("_counted",)

    def __init__(self) -> None:
        self._counted: list[tuple[NamedPolicy, SlidingWindow]] = []

    def note(self, policy: NamedPolicy, window: SlidingWindow) -> None:
        self._counted.append((policy, window))

    def headers(self, now_s: float) -> Headers:
        """Of the policy nearest to its limit; none where nothing was counted."""
        nearest: NamedPolicy | None = None
        least, left, resets_in_s = 2.0, 0.0, 0.0
        for policy, window in self._counted:
            window_s = policy.window_s
            # Written out: this runs for every answer. The window was turned a moment ago.
            rest_s = max(0.0, (window.bucket + 1) * window_s - now_s)
            unused = policy.limit - window.current - window.previous * rest_s / window_s
            share = unused / policy.limit
            if share < least:
                nearest, least, left, resets_in_s = policy, share, unused, rest_s
        if nearest is None:
            return ()
        told = nearest.remaining % (max(0, int(left)), math.ceil(resets_in_s) or 1)
        return (nearest.header, (b"ratelimit", told))


current_standings: ContextVar[Standings | None] = ContextVar("standings", default=None)
