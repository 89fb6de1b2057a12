"""What an answer tells of the limits that its request counted against."""

from collections.abc import Sequence
from typing import Any, cast

import pytest

from iotflow.domain.limits import RatePolicy
from iotflow.limits.limiter import RateLimiter
from iotflow.limits.standing import Standings, current_standings
from iotflow.settings import RateLimitSettings
from iotflow.stores.cache.protocol import Hit, WindowCount

NOW_S = 1_800_000_000.0
WINDOW_S = 3600


class SharedCache:
    """Other processes have counted `others` of everything before."""

    shares_counts = True

    def __init__(self, others: int) -> None:
        self._others = others

    async def count(self, hits: Sequence[Hit]) -> list[WindowCount]:
        return [WindowCount(0, self._others + hit.cost, 0.0) for hit in hits]


@pytest.fixture
def standings() -> Standings:
    found = Standings()
    current_standings.set(found)
    return found


def limiter(others: int) -> RateLimiter:
    settings = RateLimitSettings(
        ingest=RatePolicy(100, WINDOW_S), points=RatePolicy(50, WINDOW_S), read=RatePolicy(10, 60)
    )
    return RateLimiter(cast(Any, SharedCache(others)), settings, lambda: NOW_S)


def told(standings: Standings) -> dict[bytes, bytes]:
    return dict(standings.headers(NOW_S))


async def test_what_others_have_counted_is_told_at_once(standings: Standings) -> None:
    await limiter(7).check("read", "user:1")
    assert told(standings)[b"ratelimit"].startswith(b'"read";r=2;')


async def test_what_others_know_less_of_is_told_as_it_is(standings: Standings) -> None:
    limits = limiter(0)
    for _ in range(3):
        await limits.check("read", "user:1")
    assert told(standings)[b"ratelimit"].startswith(b'"read";r=7;')


def test_the_nearest_limit_is_told(standings: Standings) -> None:
    limits = limiter(0)
    limits.admit(1, (("ingest", 1), ("points", 1)))
    assert told(standings) == {
        b"ratelimit-policy": b'"points";q=50;w=3600',
        b"ratelimit": b'"points";r=49;t=3600',
    }
    limits.admit(1, (("ingest", 90),))
    assert told(standings)[b"ratelimit"] == b'"ingest";r=9;t=3600'


def test_nothing_is_told_where_nothing_was_counted(standings: Standings) -> None:
    assert told(standings) == {}
