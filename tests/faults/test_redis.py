"""Redis dies, freezes, comes back empty or with another primary, while devices send."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.load import Load, failures, fleet_of, latest, missing, p99_s, told
from tests.process.conftest import Served, served
from tests.servers.own_server import own_servers
from tests.servers.redis_server import RedisServer
from tests.servers.stores import four_stores

pytestmark = [pytest.mark.servers, pytest.mark.faults]

DEVICES = 10
# One submission waits for one call of the cache at most: 0.25 s, and what a busy machine adds.
BUDGET_S = 1.5
SENTINEL_OFFSET = 3600


@pytest.fixture(name="redis")
def _redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture(name="service")
def _service(redis: RedisServer, tmp_path: Path) -> Iterator[Served]:
    with four_stores() as settings:
        cache = {"IOTFLOW_CACHE__URL": redis.url}
        with served(tmp_path / "data", **settings | cache) as service:
            yield service


async def read_latest(url: str, load: Load) -> None:
    """Every device's latest value is no older than what was acknowledged before it was asked."""
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        for device in load.fleet.devices:
            acknowledged = max(load.acknowledged[device.id].values())
            assert await latest(client, device) >= acknowledged


async def until_hit(url: str, load: Load, within_s: float) -> float:
    """Until the latest value of a device comes from the cache again; how long it took."""
    began_s = time.monotonic()
    device = load.fleet.devices[0]
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        while True:
            path = f"/api/v1/telemetry/{device.id}/latest"
            answer = await client.get(path, headers=device.key)
            if answer.headers["X-Cache"] == "hit":
                return time.monotonic() - began_s
            assert time.monotonic() - began_s < within_s, "the cache is not used again"
            await asyncio.sleep(0.1)


async def test_redis_dies_comes_back_empty_freezes_and_thaws(
    redis: RedisServer, service: Served
) -> None:
    load = Load(await asyncio.to_thread(fleet_of, service.url, DEVICES))
    async with load.against(service.url):
        began_s = time.monotonic()
        await asyncio.sleep(3)
        await until_hit(service.url, load, 5)
        killed_s = time.monotonic()
        redis.kill()
        await asyncio.sleep(5)
        await read_latest(service.url, load)
        await asyncio.to_thread(redis.start)
        used_again_s = await until_hit(service.url, load, 10)
        await read_latest(service.url, load)
        frozen_s = time.monotonic()
        redis.freeze()
        await asyncio.sleep(5)
        await read_latest(service.url, load)
        redis.thaw()
        thawed_s = time.monotonic()
        used_after_thaw_s = await until_hit(service.url, load, 10)
        await read_latest(service.url, load)
        await asyncio.sleep(1)
    lost = await missing(service.url, load)
    told(
        "Redis killed, empty, frozen",
        load,
        len(lost),
        p99_before=p99_s(load.since(began_s, killed_s)),
        p99_dead=p99_s(load.since(killed_s, frozen_s)),
        p99_frozen=p99_s(load.since(frozen_s, thawed_s)),
        longest=max(answer.took_s for answer in load.answers),
        hits_again=used_again_s,
        hits_after_thaw=used_after_thaw_s,
    )
    assert failures(load.answers) == [], "a device is told nothing of a cache"
    assert max(answer.took_s for answer in load.since(killed_s)) < BUDGET_S
    assert not lost


async def test_entries_that_are_no_entries_are_misses(redis: RedisServer, service: Served) -> None:
    load = Load(await asyncio.to_thread(fleet_of, service.url, DEVICES))
    async with load.against(service.url):
        await asyncio.sleep(1)
        await until_hit(service.url, load, 5)
        for _ in range(5):
            corrupt(redis)
            await read_latest(service.url, load)
            await asyncio.sleep(0.3)
    lost = await missing(service.url, load)
    told("corrupted cache entries", load, len(lost))
    assert failures(load.answers) == []
    assert not lost


def corrupt(redis: RedisServer) -> None:
    """Put nonsense where keys and latest values are, of the right and of the wrong kind."""
    for number, key in enumerate(redis.client.scan_iter("device:*", count=1000)):
        kind = redis.client.type(key)
        if kind == b"hash" and number % 2:
            for name in redis.client.hkeys(key):
                redis.client.hset(key, name, b"\xff\x00{nonsense")
        elif kind == b"string" and number % 2:
            redis.client.set(key, b"\xff\x00{nonsense")
        else:
            redis.client.delete(key)
            redis.client.lpush(key, b"a list")


async def test_the_primary_under_sentinel_dies(tmp_path: Path) -> None:
    with own_servers(tmp_path / "sentinel", SENTINEL_OFFSET, "redis-sentinel") as servers:
        settings = await asyncio.to_thread(servers.start)
        with served(tmp_path / "data", **settings) as service:
            load = Load(await asyncio.to_thread(fleet_of, service.url, DEVICES))
            async with load.against(service.url):
                await asyncio.sleep(1)
                await until_hit(service.url, load, 5)
                killed_s = time.monotonic()
                await asyncio.to_thread(servers.kill, "redis-sentinel-primary")
                await asyncio.sleep(0.5)
                moved_s = await until_hit(service.url, load, 20)
                await read_latest(service.url, load)
            lost = await missing(service.url, load)
    longest_s = max(answer.took_s for answer in load.since(killed_s))
    told("primary under Sentinel killed", load, len(lost), hits_again=moved_s, longest=longest_s)
    assert failures(load.answers) == []
    assert longest_s < BUDGET_S
    assert not lost
