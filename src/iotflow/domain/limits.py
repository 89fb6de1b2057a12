"""Rate policies."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RatePolicy:
    """At most `limit` units in any `window_s` seconds."""

    limit: int
    window_s: int
