"""Warming: an emptied cache is filled before devices and readers ask the stores all at once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime

import msgspec

from iotflow.devices.authentication import KeyAuthenticator
from iotflow.domain.devices import Device
from iotflow.domain.times import to_ms
from iotflow.jobs.worker import HeldJob, counted
from iotflow.maintenance.fleet import device_pages, how_many
from iotflow.maintenance.pace import Pace
from iotflow.maintenance.parameters import WarmingParameters
from iotflow.maintenance.replay import StopNowError, between_pages
from iotflow.stores.cache.protocol import CacheStore
from iotflow.stores.registry.protocol import Registry
from iotflow.telemetry.latest import LatestValues


class WarmingWork:
    """Fills latest values through those who read them, and the records of keys.

    What is there already stays. A fill is thrown away where something was deleted or revoked
    meanwhile, as that of any reader is.
    """

    def __init__(
        self,
        registry: Registry,
        cache: CacheStore,
        latest: LatestValues,
        keys: KeyAuthenticator,
        pace: Pace,
    ) -> None:
        self._registry = registry
        self._cache = cache
        self._latest = latest
        self._keys = keys
        self._pace = pace

    async def run(self, held: HeldJob, stop: asyncio.Event) -> None:
        """All of it (see JobWork)."""
        wanted = msgspec.convert(held.job.parameters, WarmingParameters)
        await self._cache.ping()
        if held.job.stage == 0:
            state = {"total": await how_many(self._registry, None)}
            counts: dict[str, int | None] = dict.fromkeys(
                ("devices", "warmed", "filled", "keys"), 0
            )
            await held.save(replace(held.job, stage=1, state=state, counts=counts))
        else:
            await held.save(held.job)
        try:
            await self._pages(held, wanted.seen_since_ms, stop)
        except StopNowError:
            await held.save(held.job, hold=False)

    async def _pages(self, held: HeldJob, since_ms: int | None, stop: asyncio.Event) -> None:
        async def between() -> None:
            await between_pages(held, stop)

        job = held.job
        async for page in device_pages(self._registry, job.after_device_id, None):
            ids = [device.id for device in page if _seen_since(device, since_ms)]
            filled = keys = 0
            if ids:
                filled = await self._fill(ids)
                await between()
                keys = await self._warm_keys(ids, held.now(), between)
            job = counted(job, devices=len(page), warmed=len(ids), filled=filled, keys=keys)
            job = await held.save_if_due(replace(job, after_device_id=page[-1].id))
            await between()
        await held.finish(job)

    async def _fill(self, device_ids: Sequence[int]) -> int:
        """Of how many devices the cache did not know the latest values."""
        await self._cache.ping()  # readers do without it; this job waits until it is back
        with self._pace.working():
            found = await self._latest.of_many(device_ids)
        await self._pace.rest()
        return sum(1 for each in found.values() if each.cache == "miss")

    async def _warm_keys(
        self, device_ids: Sequence[int], now: datetime, between: Callable[[], Awaitable[None]]
    ) -> int:
        digests = await self._registry.live_keys(device_ids, now)
        for digest in digests:
            with self._pace.working():
                await self._keys.warm(digest)
            await between()
        await self._pace.rest()
        return len(digests)


def _seen_since(device: Device, since_ms: int | None) -> bool:
    if since_ms is None:
        return True
    return device.last_seen is not None and to_ms(device.last_seen) >= since_ms
