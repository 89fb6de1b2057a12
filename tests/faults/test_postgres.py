"""The registry's PostgreSQL dies, is replaced by its standby, or has no connection left."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.faults.load import API, Load, failures, fleet_of, missing, told
from tests.process.conftest import PASSWORD, Served, served
from tests.servers.own_server import OwnServers, own_servers
from tests.servers.stores import SECRET, fresh_database
from tests.servers.test_postgres_faults import promote

pytestmark = [pytest.mark.servers, pytest.mark.faults]

DEVICES = 10
STANDBY_OFFSET = 3800
ACCOUNT = {"username": "ada", "password": PASSWORD}


@pytest.fixture(name="servers")
def _servers(tmp_path: Path) -> Iterator[OwnServers]:
    with own_servers(tmp_path / "postgres", STANDBY_OFFSET, "postgres-standby") as servers:
        yield servers


async def register_devices(
    client: httpx.AsyncClient, bearer: dict[str, str], acknowledged: list[int], stop: asyncio.Event
) -> None:
    """Register one device after the other, and remember those that were acknowledged."""
    while not stop.is_set():
        body = {"name": f"registered {len(acknowledged)}"}
        answer = await client.post(f"{API}/devices/register", json=body, headers=bearer)
        assert answer.status_code in (201, 503), answer.text
        if answer.status_code == 201:
            acknowledged.append(answer.json()["device"]["id"])
        else:
            assert int(answer.headers["Retry-After"]) >= 1
        await asyncio.sleep(0.1)


async def until_signed_in(client: httpx.AsyncClient, within_s: float) -> float:
    began_s = time.monotonic()
    while True:
        answer = await client.post(f"{API}/auth/login", json=ACCOUNT)
        if answer.status_code == 200:
            return time.monotonic() - began_s
        assert answer.status_code == 503, answer.text
        assert time.monotonic() - began_s < within_s, "nobody can sign in"
        await asyncio.sleep(0.1)


async def all_devices(client: httpx.AsyncClient, bearer: dict[str, str]) -> set[int]:
    found: set[int] = set()
    params: dict[str, str | int] = {"limit": 1000}
    while True:
        page = (await client.get(f"{API}/devices", params=params, headers=bearer)).json()
        found |= {device["id"] for device in page["items"]}
        if page["next_cursor"] is None:
            return found
        params["cursor"] = page["next_cursor"]


async def test_the_primary_dies_and_the_standby_is_promoted(
    servers: OwnServers, tmp_path: Path
) -> None:
    settings = await asyncio.to_thread(servers.start)
    url, settings["IOTFLOW_SECRET_KEY"] = settings["IOTFLOW_REGISTRY__URL"], SECRET
    with served(tmp_path / "data", **settings) as service:
        fleet = await asyncio.to_thread(fleet_of, service.url, DEVICES)
        load, registered, stop = Load(fleet), list[int](), asyncio.Event()
        async with (
            httpx.AsyncClient(base_url=service.url, timeout=20) as client,
            load.against(service.url),
        ):
            registering = asyncio.create_task(
                register_devices(client, fleet.bearer, registered, stop)
            )
            await asyncio.sleep(3)
            killed_s = time.monotonic()
            await asyncio.to_thread(servers.kill, "postgres-primary")
            await asyncio.sleep(8)
            before = len(registered)
            await promote(url)
            signed_in_s = await until_signed_in(client, 20)
            await asyncio.sleep(3)
            stop.set()
            await registering
            lost_devices = set(registered) - await all_devices(client, fleet.bearer)
        lost = await missing(service.url, load)
    longest_s = max(answer.took_s for answer in load.since(killed_s))
    told(
        "PostgreSQL primary killed, standby promoted",
        load,
        len(lost) + len(lost_devices),
        registered=len(registered),
        sign_in_after_promotion=signed_in_s,
        longest=longest_s,
    )
    assert failures(load.answers) == [], "known devices go on"
    assert not lost
    assert not lost_devices
    assert len(registered) > before > 5, "before, and again afterwards"
    assert signed_in_s < 10


async def test_no_connection_is_left(tmp_path: Path) -> None:
    with fresh_database() as url:
        settings = {"IOTFLOW_REGISTRY__URL": url, "IOTFLOW_SECRET_KEY": SECRET}
        with served(tmp_path / "data", **settings) as service:
            await exhaust(url, service)


async def exhaust(url: str, service: Served) -> None:
    load = Load(await asyncio.to_thread(fleet_of, service.url, DEVICES))
    async with (
        httpx.AsyncClient(base_url=service.url, timeout=20) as client,
        load.against(service.url),
    ):
        await asyncio.sleep(1)
        async with held(url, "registry.devices"):
            answers = await asyncio.gather(*(registration(client, load) for _ in range(300)))
        recovered_s = await until_registered(client, load, 10)
    lost = await missing(service.url, load)
    told("pool exhausted", load, len(lost), recovery=recovered_s)
    for answer in answers:
        assert answer.status_code == 503, answer.text
        assert answer.json()["code"] in ("store_unavailable", "overloaded")
        assert int(answer.headers["Retry-After"]) >= 1
    assert failures(load.answers) == [], "known devices go on"
    assert not lost


class held:  # noqa: N801
    """A lock that whoever reads or writes the table waits for."""

    def __init__(self, url: str, table: str) -> None:
        self._url, self._table = url, table

    async def __aenter__(self) -> None:
        self._connection = await asyncpg.connect(self._url)
        await self._connection.execute("BEGIN")
        await self._connection.execute(f"LOCK TABLE {self._table} IN ACCESS EXCLUSIVE MODE")

    async def __aexit__(self, *_error: object) -> None:
        with suppress(asyncpg.PostgresError):
            await self._connection.execute("COMMIT")
        await self._connection.close()


async def registration(client: httpx.AsyncClient, load: Load) -> httpx.Response:
    body = {"name": "one more"}
    return await client.post(f"{API}/devices/register", json=body, headers=load.fleet.bearer)


async def until_registered(client: httpx.AsyncClient, load: Load, within_s: float) -> float:
    began_s = time.monotonic()
    while (await registration(client, load)).status_code != 201:
        assert time.monotonic() - began_s < within_s, "it does not recover"
        await asyncio.sleep(0.1)
    return time.monotonic() - began_s
