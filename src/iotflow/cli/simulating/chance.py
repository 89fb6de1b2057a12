"""Chance that repeats: the same seed gives the same numbers on every Python version."""

import math

_MASK = 2**64 - 1


class Chance:
    """SplitMix64 (Steele, Lea, Flood 2014): small, fast, and specified, as `random` is not."""

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def _next(self) -> int:
        self._state = z = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)

    def uniform(self) -> float:
        """In [0, 1)."""
        return (self._next() >> 11) / 2**53

    def happens(self, probability: float) -> bool:
        return self.uniform() < probability

    def normal(self, sigma: float) -> float:
        """Around 0 (Box and Muller)."""
        radius = math.sqrt(-2 * math.log(1 - self.uniform()))
        return sigma * radius * math.cos(math.tau * self.uniform())

    def geometric(self, mean: float) -> int:
        """1 or more, `mean` on average (which is 1 or more)."""
        if mean <= 1:
            return 1
        return 1 + int(math.log(1 - self.uniform()) / math.log(1 - 1 / mean))
