"""201 means durable: SIGKILL at a random moment loses no acknowledged point."""

import asyncio
import random
from pathlib import Path

import httpx

from tests.process.conftest import Credentials, Served, register, served

KILLS = 10
CLIENTS = 16


class Load:
    """Clients that submit without a pause and remember what was acknowledged."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._numbers = iter(range(10**9))
        self.sent: set[int] = set()
        self.acknowledged: dict[int, str] = {}

    async def run(self, service: Served, seconds: float) -> None:
        async with httpx.AsyncClient(
            base_url=f"{service.url}/api/v1", headers=self._credentials.key, timeout=5
        ) as client:
            clients = [asyncio.create_task(self._client(client)) for _ in range(CLIENTS)]
            await asyncio.sleep(seconds)
            service.kill()
            await asyncio.gather(*clients)

    async def _client(self, client: httpx.AsyncClient) -> None:
        while True:
            number = next(self._numbers)
            self.sent.add(number)
            body = {"data": {"number": number, "again": number}}
            try:
                answer = await client.post("/telemetry", json=body)
            except httpx.TransportError:
                return
            assert answer.status_code == 201, answer.text
            self.acknowledged[number] = answer.json()["timestamp"]


def stored(url: str, credentials: Credentials) -> dict[int, str]:
    """Every number that is there, with its timestamp."""
    found: dict[int, str] = {}
    params: dict[str, str | int] = {
        "measurement": "number", "limit": 10_000, "start_time": "-1h",
    }  # fmt: skip
    with httpx.Client(base_url=f"{url}/api/v1", headers=credentials.key, timeout=20) as client:
        while True:
            answer = client.get(f"/telemetry/{credentials.device_id}", params=params)
            page = answer.json()
            for point in page["data"]:
                assert point["value"] not in found, "a point is there twice"
                found[point["value"]] = point["timestamp"]
            if page["next_cursor"] is None:
                return found
            params = params | {"cursor": page["next_cursor"]}


def test_no_acknowledged_point_is_lost(tmp_path: Path) -> None:
    chance = random.Random(20_260_101)
    with served(tmp_path) as service:
        credentials = register(service.url)
    load = Load(credentials)
    for _ in range(KILLS):
        with served(tmp_path) as service:
            asyncio.run(load.run(service, chance.uniform(0.1, 0.8)))
    with served(tmp_path) as service:
        found = stored(service.url, credentials)
        latest = httpx.get(
            f"{service.url}/api/v1/telemetry/{credentials.device_id}/latest",
            headers=credentials.key,
        ).json()
    assert len(load.acknowledged) > 100
    lost = {n: at for n, at in load.acknowledged.items() if found.get(n) != at}
    assert not lost, f"{len(lost)} of {len(load.acknowledged)} acknowledged points are gone"
    assert found.keys() <= load.sent
    newest = max(found, key=lambda number: found[number])
    assert latest["data"]["number"] == newest
