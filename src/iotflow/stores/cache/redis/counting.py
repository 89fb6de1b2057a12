"""Counting in windows of time, by the server's clock."""

from collections.abc import Sequence
from secrets import token_hex
from typing import Any

from iotflow.stores.cache.protocol import Hit, LogCount, WindowCount
from iotflow.stores.cache.redis import codec, scripts
from iotflow.stores.cache.redis.calls import Calls, run


class Counting:
    """Two-bucket counters, in one hash a device or subject, and exact logs."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def count(self, hits: Sequence[Hit]) -> list[WindowCount]:
        args: dict[str, list[Any]] = {}
        places: dict[str, list[int]] = {}
        for place, hit in enumerate(hits):
            key, field = codec.counter(hit)
            args.setdefault(key, []).extend((field, hit.window_s, hit.cost))
            places.setdefault(key, []).append(place)
        calls = [run(scripts.COUNT, [key], *counted) for key, counted in args.items()]
        replies = await self._calls.all(calls)
        found: dict[int, WindowCount] = {}
        for there, reply in zip(places.values(), replies, strict=True):
            counted = codec.counts(reply, [hits[place] for place in there])
            found.update(zip(there, counted, strict=True))
        return [found[place] for place in range(len(hits))]

    async def log(self, hit: Hit, limit: int) -> LogCount:
        keys, window_us = codec.log_keys(hit), hit.window_s * 1_000_000
        args = (window_us, hit.cost, limit, token_hex(8), hit.window_s)
        count, left_us = await self._calls.one(run(scripts.LOG, keys, *args))
        return LogCount(count, left_us / 1_000_000)
