"""Latencies in memory that does not grow, however long they are taken."""

import math

_LEAST_S = 1e-5
_STEP = math.log(1.01)  # a bucket is one per cent wide
_BUCKETS = 1700  # up to about 200 s


class Latencies:
    """A histogram with relative precision of one per cent."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.count = 0
        self.longest_s = 0.0

    def add(self, seconds: float) -> None:
        bucket = int(math.log(seconds / _LEAST_S) / _STEP) + 1 if seconds > _LEAST_S else 0
        self._counts[min(bucket, _BUCKETS - 1)] += 1
        self.count += 1
        self.longest_s = max(self.longest_s, seconds)

    def percentile_s(self, share: float) -> float:
        """What at least `share` of all do not exceed; 0 for none."""
        rank = max(1, math.ceil(round(share * self.count, 9)))
        passed = 0
        for bucket, count in enumerate(self._counts):
            passed += count
            if count and passed >= rank:
                return min(self.longest_s, _LEAST_S * math.exp(bucket * _STEP))
        return 0.0
