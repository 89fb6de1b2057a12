"""Warming asks for little at a time, gives way, and waits for a cache that goes away."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from iotflow.devices.authentication import KeyAuthenticator
from iotflow.domain.devices import KeyRecord
from iotflow.domain.jobs import NOBODY, JobKind, JobStatus
from iotflow.errors import StoreUnavailableError
from iotflow.jobs.worker import HeldJob
from iotflow.maintenance.pace import Pace
from iotflow.maintenance.warming import WarmingWork
from iotflow.observability.metrics import Metrics
from iotflow.stores.cache.memory import MemoryCache
from iotflow.stores.cache.protocol import FixedEpoch
from iotflow.stores.cache.ttls import CacheTtls
from iotflow.stores.registry.protocol import NewDevice, NewJob, NewKey, NewUser
from iotflow.stores.registry.sql import SqlRegistry
from iotflow.stores.telemetry.sqlite import SqliteTelemetryStore
from iotflow.telemetry.latest import LatestValues

NOW_S = 1_800_000_000.0
NOW = datetime.fromtimestamp(NOW_S, UTC)
DEVICES = 30


class Counted(SqlRegistry):
    """Counts look-ups of keys, and how many were under way at once."""

    looked_up = under_way = most = 0

    async def key_record(self, digest: str, now: datetime) -> KeyRecord | None:
        self.looked_up += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            return await super().key_record(digest, now)
        finally:
            self.under_way -= 1


class World:
    """The stores of some devices that have sent nothing yet."""

    def __init__(self, directory: Path) -> None:
        self.registry = Counted(f"sqlite:///{directory}/registry.db")
        self.telemetry = SqliteTelemetryStore(directory / "telemetry.db")
        self.cache = MemoryCache(CacheTtls())

    async def open(self) -> None:
        for store in (self.registry, self.telemetry, self.cache):
            await store.open()
        user = await self.registry.create_user(NewUser("ada", "ada@example.com", "hash"), NOW)
        new = [(NewDevice(user.id, f"d{n}"), NewKey(f"{n:064x}", "iotd_x")) for n in range(DEVICES)]
        await self.registry.create_devices(new, NOW)

    async def close(self) -> None:
        for store in (self.registry, self.telemetry, self.cache):
            await store.close()

    def work(self) -> WarmingWork:
        async def unhurried(_seconds: float) -> None: ...

        keys = KeyAuthenticator(self.registry, self.cache, FixedEpoch(), Metrics(), lambda: NOW_S)
        latest = LatestValues(self.telemetry, self.cache, Metrics(), lambda: True)
        pace = Pace(1.0, sleep=unhurried)
        return WarmingWork(self.registry, self.cache, latest, keys, pace)

    async def held(self) -> HeldJob:
        await self.registry.add_job(NewJob(JobKind.CACHE_WARMING, NOBODY, 0, {}), NOW)
        job = await self.registry.claim_job("me", NOW, NOW + timedelta(seconds=20))
        assert job is not None
        return HeldJob(self.registry, "me", job, lambda: NOW_S)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.open()
    yield world
    await world.close()


async def test_keys_are_looked_up_one_after_the_other(world: World) -> None:
    held = await world.held()
    await world.work().run(held, asyncio.Event())
    assert held.job.status is JobStatus.DONE
    assert (held.job.counts["keys"], held.job.counts["filled"]) == (DEVICES, DEVICES)
    assert (world.registry.looked_up, world.registry.most) == (DEVICES, 1)
    entries = [await world.cache.key(f"{number:064x}") for number in range(DEVICES)]
    assert all(entry is not None and entry.record is not None for entry in entries)


async def test_a_stop_is_seen_between_two_keys(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, stop = await world.held(), asyncio.Event()
    asked = world.cache.key

    async def stopping(digest: str) -> object:
        stop.set()
        return await asked(digest)

    monkeypatch.setattr(world.cache, "key", stopping)
    await world.work().run(held, stop)
    assert world.registry.looked_up == 1
    assert held.job.status is not JobStatus.DONE


async def test_a_cache_that_went_away_is_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = await world.held()
    pings = 0

    async def ping() -> None:
        nonlocal pings
        pings += 1
        if pings > 1:
            raise StoreUnavailableError("cache")

    monkeypatch.setattr(world.cache, "ping", ping)
    with pytest.raises(StoreUnavailableError):
        await world.work().run(held, asyncio.Event())
    assert world.registry.looked_up == 0
