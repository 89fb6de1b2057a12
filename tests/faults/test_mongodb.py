"""MongoDB dies and freezes: devices notice nothing, what is dropped is counted exactly, and by
itself all of it is made again from the points."""

import asyncio
import os
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pymongo
import pytest

from iotflow.domain.events import submission_id
from tests.faults.load import Load, failures, fleet_of, missing, p99_s, told
from tests.process.conftest import Served, served
from tests.servers.cassandra_session import plain_session
from tests.servers.own_server import OwnServers, own_servers
from tests.servers.stores import four_stores

pytestmark = [pytest.mark.servers, pytest.mark.faults]

DEVICES = 10
OFFSET = 3900
QUEUE = 50
# Both longer than the queue takes to fill.
AWAY_S = float(os.environ.get("FAULTS_AWAY_S", "60"))
FROZEN_S = 15.0
# A replay begins so long after the last loss: what was dropped is counted before.
SETTLE_S = 8.0
BACK_S = 60.0
# Attempts at writing are 5 s apart at most.
AGAIN_S = 10.0
# The stand-in writes its file once a second: what it has said must be there when it is killed.
FLUSHED_S = 2.5
NOISE_S = 0.1


@pytest.fixture(scope="module", name="servers")
def _servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServers]:
    with own_servers(tmp_path_factory.mktemp("mongodb"), OFFSET, "mongodb") as servers:
        yield servers


@pytest.fixture(name="url")
def _url(servers: OwnServers) -> str:
    return servers.start()["IOTFLOW_EVENTS__URL"]


@pytest.fixture(name="settings")
def _settings(url: str) -> Iterator[dict[str, str]]:
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        client.get_default_database("iotflow").drop_collection("events")
    own = {
        "IOTFLOW_EVENTS__URL": url,
        "IOTFLOW_PIPELINE__EVENT_QUEUE": str(QUEUE),
        "IOTFLOW_JOBS__SETTLE_S": str(SETTLE_S),
    }
    with four_stores() as settings:
        yield settings | own


@pytest.fixture(name="service")
def _service(settings: dict[str, str], tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path / "data", **settings) as service:
        yield service


async def number(service: Served, metric: str) -> int:
    async with httpx.AsyncClient(base_url=service.url, timeout=10) as client:
        text = (await client.get("/metrics")).text
    found = re.search(rf"^{re.escape(metric)} (\S+)$", text, re.MULTILINE)
    assert found, f"no metric {metric}"
    return int(float(found[1]))


async def waiting(service: Served) -> int:
    return await number(service, 'iotflow_queue_depth{queue="events"}')


async def deepest(service: Served, for_s: float) -> int:
    """How many events waited at most, looked at now and then."""
    deadline, most = time.monotonic() + for_s, 0
    while time.monotonic() < deadline:
        most = max(most, await waiting(service))
        await asyncio.sleep(0.5)
    return most


async def until_written_again(service: Served) -> float:
    """How long it takes until the queue empties: its worker has come back."""
    began_s = time.monotonic()
    while await waiting(service) > QUEUE / 2:
        assert time.monotonic() - began_s < BACK_S, "events are not written again"
        await asyncio.sleep(0.2)
    return time.monotonic() - began_s


def logged(url: str) -> set[str]:
    """Ids of the submissions' events.

    A set: the stand-in may keep one twice that two connections insert at once.
    """
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        events = client.get_default_database("iotflow").get_collection("events")
        found = events.find({"event_type": "telemetry.submitted"}, {"_id": 1})
        return {event["_id"] for event in found}


async def of_points(url: str) -> set[str]:
    """The events' ids that the points in Cassandra ask for: a device, and when it was written."""
    keyspace = url.rpartition("/")[2].partition("?")[0]
    points = f"SELECT device_id, WRITETIME(user_id) FROM {keyspace}.telemetry_by_device"
    async with plain_session(url) as session:
        return {submission_id(written, device) for device, written in await session.rows(points)}


async def outcome(service: Served, url: str, load: Load, within_s: float = 5) -> tuple[int, int]:
    """Events of submissions that are there, and that were dropped, once they are all of them."""
    deadline = time.monotonic() + within_s
    while True:
        dropped = await number(service, 'iotflow_queue_dropped_total{queue="events"}')
        written = len(await asyncio.to_thread(logged, url))
        if written + dropped >= load.count or time.monotonic() > deadline:
            return written, dropped
        await asyncio.sleep(0.2)


async def replayed_s(url: str, wanted: set[str]) -> float:
    """How long it takes until the log has what is wanted, by itself."""
    began_s = time.monotonic()
    while not wanted <= await asyncio.to_thread(logged, url):
        assert time.monotonic() - began_s < BACK_S, "what was dropped does not come back"
        await asyncio.sleep(0.5)
    return time.monotonic() - began_s


async def test_killed_and_back(
    servers: OwnServers, settings: dict[str, str], service: Served
) -> None:
    load = Load(await asyncio.to_thread(fleet_of, service.url, DEVICES))
    began_s = time.monotonic()
    async with load.against(service.url):
        await asyncio.sleep(5)
    await asyncio.sleep(FLUSHED_S)
    await asyncio.to_thread(servers.kill, "mongodb")
    killed_s = time.monotonic()
    async with load.against(service.url):
        most = await deepest(service, AWAY_S)
        away_s = time.monotonic()
        await asyncio.to_thread(servers.start)
        back_s = await until_written_again(service)
    times = (began_s, killed_s, away_s)
    await check(service, settings, load, "MongoDB killed", times, most, back_s)


async def test_frozen_and_thawed(
    servers: OwnServers, settings: dict[str, str], service: Served
) -> None:
    load = Load(await asyncio.to_thread(fleet_of, service.url, DEVICES))
    began_s = time.monotonic()
    async with load.against(service.url):
        await asyncio.sleep(5)
        frozen_s = time.monotonic()
        with servers.frozen("mongodb"):
            most = await deepest(service, FROZEN_S)
            thawed_s = time.monotonic()
        back_s = await until_written_again(service)
    times = (began_s, frozen_s, thawed_s)
    await check(service, settings, load, "MongoDB frozen", times, most, back_s)


async def check(
    service: Served,
    settings: dict[str, str],
    load: Load,
    row: str,
    times: tuple[float, float, float],
    most: int,
    back_s: float,
) -> None:
    """`times` are when the load began, and when MongoDB went and was to come again."""
    url = settings["IOTFLOW_EVENTS__URL"]
    written, dropped = await outcome(service, url, load)
    wanted = await of_points(settings["IOTFLOW_TELEMETRY__URL"])
    replay_s = await replayed_s(url, wanted)
    lost = await missing(service.url, load)
    usual_s, without_s = (p99_s(load.since(*of)) for of in pairwise(times))
    told(
        row,
        load,
        len(lost),
        p99_before=usual_s,
        p99_without=without_s,
        dropped=dropped,
        most_waiting=most,
        written_again=back_s,
        replayed=replay_s,
    )
    assert failures(load.answers) == []
    assert without_s < max(1.5 * usual_s, NOISE_S)
    assert most <= QUEUE
    assert back_s < AGAIN_S
    assert dropped > 0, "the queue was never full"
    assert written + dropped == load.count
    assert len(wanted) == load.count
    assert await asyncio.to_thread(logged, url) == wanted
    assert not lost
