"""Slows down whoever goes on against a limit and does not wait as told."""

from dataclasses import dataclass

from iotflow.errors import RateLimitedError

# So many refusals in one window, all before the time that was told is over, are stubborn: what
# was under way when a limit was reached is not.
STUBBORN_REFUSALS = 10
# So many windows in a row have to be stubborn before the waiting grows.
STUBBORN_WINDOWS = 3
MAX_PENALTY_S = 300


class ThrottledError(RateLimitedError):
    """The subject is shut out for a while; `retry_after_s` is what is left of that."""

    def __init__(self, policy: str, limit: int, window_s: int, retry_after_s: int) -> None:
        super().__init__(policy, limit, window_s, retry_after_s)
        self.message = (
            f"Throttled: too many requests were sent against the limit of policy '{policy}' "
            f"({limit} in {window_s} s) without waiting as Retry-After said. "
            f"Nothing is accepted for another {retry_after_s} s; waiting ends it."
        )


@dataclass(slots=True)
class Throttle:
    """What one subject does with refusals.

    After STUBBORN_WINDOWS windows in a row with STUBBORN_REFUSALS each it is shut out for a
    window, then, for each stubborn window that follows at once, for twice as long as before, at
    most MAX_PENALTY_S. Requests while shut out prolong nothing, so what was told stays true. A
    window without stubbornness forgets all of it.
    """

    window_s: int
    bucket: int = 0
    refusals: int = 0
    windows: int = 0
    told_until_s: float = 0.0
    shut_until_s: float = 0.0

    def shut_for_s(self, now_s: float) -> float:
        """What is left of being shut out, 0 for whoever is not."""
        return max(0.0, self.shut_until_s - now_s)

    def refused(self, now_s: float, retry_after_s: int) -> bool:
        """Note a refusal that told to wait; returns whether it shuts the subject out."""
        self._turn(int(now_s // self.window_s))
        if now_s < self.told_until_s:
            self.refusals += 1
        else:
            self.told_until_s = now_s + retry_after_s
        if self.refusals != STUBBORN_REFUSALS:
            return False
        self.refusals += 1  # so that this window counts once
        self.windows += 1
        if self.windows < STUBBORN_WINDOWS:
            return False
        doubled = self.window_s << min(self.windows - STUBBORN_WINDOWS, 16)
        penalty_s = max(retry_after_s, min(doubled, MAX_PENALTY_S))
        self.shut_until_s = self.told_until_s = now_s + penalty_s
        # The window in which this ends may be short: it counts as one of the row in any case.
        self.bucket = int(self.shut_until_s // self.window_s)
        return True

    def _turn(self, bucket: int) -> None:
        if bucket <= self.bucket:
            return
        if bucket > self.bucket + 1 or self.refusals < STUBBORN_REFUSALS:
            self.windows = 0
        self.bucket, self.refusals = bucket, 0
