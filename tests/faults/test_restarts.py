"""The four servers start after the service, and restart in any order, again and again."""

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.faults.load import Load, fleet_of, missing, settled_s, told
from tests.process.conftest import environment, free_port
from tests.servers.own_server import OwnServers, own_servers
from tests.servers.stores import SECRET

pytestmark = [pytest.mark.servers, pytest.mark.faults]

OFFSET = 2700
ROUNDS = int(os.environ.get("FAULTS_ROUNDS", "5"))
NAMES = ["postgres", "cassandra", "redis", "mongodb"]
CHANCE = random.Random(20_260_101)
BACK_S = 20.0


@pytest.fixture(name="servers")
def _servers(tmp_path: Path) -> Iterator[OwnServers]:
    with own_servers(tmp_path / "servers", OFFSET, "single") as servers:
        yield servers


@contextmanager
def started(data: Path, **settings: str) -> Iterator[str]:
    """The service, without waiting for its stores; gives its address."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "iotflow.cli.main", "serve"],
        env=environment(data, port, **settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
        assert process.poll() is None, "it ended"
    finally:
        process.kill()
        process.wait(10)


async def all_up(url: str) -> bool:
    """Whether the service answers for all of its stores."""
    with suppress(httpx.TransportError):
        async with httpx.AsyncClient(base_url=url, timeout=5) as client:
            text = (await client.get("/metrics")).text
        ups = [line for line in text.splitlines() if line.startswith("iotflow_store_up{")]
        return len(ups) == 4 and all(line.endswith(" 1.0") for line in ups)
    return False


async def until_up(url: str) -> float:
    began_s = time.monotonic()
    while not await all_up(url):
        assert time.monotonic() - began_s < BACK_S, "a store stays away"
        await asyncio.sleep(0.2)
    return time.monotonic() - began_s


async def test_it_serves_when_they_come_and_whenever_they_come_back(
    servers: OwnServers, tmp_path: Path
) -> None:
    settings = await asyncio.to_thread(servers.start)
    for name in NAMES:
        await asyncio.to_thread(servers.kill, name)
    own = {"IOTFLOW_SECRET_KEY": SECRET, "IOTFLOW_LOG__LEVEL": "error"}
    with started(tmp_path / "data", **settings, **own) as url:
        await asyncio.sleep(3)
        await asyncio.to_thread(servers.start)
        connected_s = await until_up(url)
        load = Load(await asyncio.to_thread(fleet_of, url, 5))
        load.patience_s = 120.0
        async with load.against(url):
            await asyncio.sleep(2)
            slowest_s = 0.0
            for _ in range(ROUNDS):
                slowest_s = max(slowest_s, await restarted(servers, url, load))
        lost = await missing(url, load)
    told(f"{ROUNDS} rounds of restarts", load, len(lost), connected=connected_s, back=slowest_s)
    assert load.given_up == 0
    assert not lost


async def restarted(servers: OwnServers, url: str, load: Load) -> float:
    """All four die and come back, in random order; how long after the last it was well again."""
    order = CHANCE.sample(NAMES, len(NAMES))
    for name in order:
        await asyncio.to_thread(servers.kill, name)
        await asyncio.sleep(CHANCE.uniform(0, 1))
    CHANCE.shuffle(order)
    for name in order:
        await asyncio.to_thread(servers.restart, name)
    began_s = time.monotonic()
    await until_up(url)
    await asyncio.sleep(2)
    before = load.count
    await asyncio.sleep(2)
    assert load.count > before, "nothing is stored after the restart"
    return max(0.0, settled_s(load.since(began_s), 2.0) - began_s)
