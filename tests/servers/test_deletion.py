"""What is deleted leaves nothing behind in any of the four stores: looked at with plain clients."""

import asyncio
import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import redis
from pymongo import MongoClient

from iotflow.stores.telemetry.cassandra.address import parse_address
from tests.process.conftest import Credentials, Served, register, served
from tests.servers.cassandra_session import plain_session
from tests.servers.stores import four_stores

pytestmark = pytest.mark.servers
API = "/api/v1"
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Deployment:
    """Two replicas over four real stores, and a device with something in each of them."""

    services: tuple[Served, Served]
    settings: dict[str, str]
    owner: Credentials

    def send(self, which: int, method: str, path: str, **options: Any) -> httpx.Response:
        options.setdefault("headers", self.owner.bearer)
        url = f"{self.services[which].url}{API}{path}"
        return httpx.request(method, url, timeout=10, **options)

    def leftovers(self) -> dict[str, int]:
        """How many rows, documents and keys of the device each store holds."""
        device_id = self.owner.device_id
        found = asyncio.run(self._in_postgres(device_id))
        found |= asyncio.run(self._in_cassandra(device_id))
        with MongoClient[dict[str, Any]](self.settings["IOTFLOW_EVENTS__URL"]) as client:
            events = client.get_default_database()["events"]
            found["mongodb"] = events.count_documents({"device_id": device_id})
        found["redis"] = len(self._in_redis(device_id))
        return {place: number for place, number in found.items() if number}

    async def _in_postgres(self, device_id: int) -> dict[str, int]:
        connection = await asyncpg.connect(self.settings["IOTFLOW_REGISTRY__URL"])
        try:
            places = {
                "devices": "id",
                "api_keys": "device_id",
                "device_config": "device_id",
                "group_devices": "device_id",
            }
            return {
                table: await connection.fetchval(
                    f"SELECT count(*) FROM registry.{table} WHERE {column} = $1", device_id
                )
                for table, column in places.items()
            }
        finally:
            await connection.close()

    async def _in_cassandra(self, device_id: int) -> dict[str, int]:
        url = self.settings["IOTFLOW_TELEMETRY__URL"]
        keyspace = parse_address(url).keyspace
        async with plain_session(url) as session:
            return {
                table: len(
                    await session.rows(
                        f"SELECT device_id FROM {keyspace}.{table}"
                        f" WHERE device_id = {device_id} ALLOW FILTERING"
                    )
                )
                for table in ("telemetry_by_device", "days_by_device", "latest_by_device")
            }

    def _in_redis(self, device_id: int) -> list[str]:
        """Keys with what is known of the device. A tombstone is none: it says what is not."""
        digest = hashlib.sha256(self.owner.api_key.encode()).hexdigest()
        with redis.Redis.from_url(self.settings["IOTFLOW_CACHE__URL"]) as client:
            names = [name.decode() for name in client.scan_iter(count=1000)]
            of_device = [
                name for name in names if name.endswith((f"{{{device_id}}}", f"device:{device_id}"))
            ]
            of_key = [name for name in names if digest in name and client.get(name) != b"revoked"]
        return of_device + of_key

    def furnish(self) -> None:
        now_ms = int(time.time() * 1000)
        for which in (0, 1):
            for days in (0, 1, 40):
                body = {"data": {"a": which, "b": "x"}, "timestamp": now_ms - days * DAY_MS}
                sent = self.send(which, "POST", "/telemetry", json=body, headers=self.owner.key)
                assert sent.status_code == 201, sent.text
        device_id = self.owner.device_id
        assert self.send(0, "PUT", f"/devices/{device_id}/config", json={"a": 1}).is_success
        group = self.send(0, "POST", "/groups", json={"name": "g"}).json()["id"]
        member = {"device_id": device_id}
        assert self.send(0, "POST", f"/groups/{group}/devices", json=member).is_success
        assert self.send(1, "GET", f"/telemetry/{device_id}/latest").is_success

    def until_furnished(self) -> None:
        deadline = time.monotonic() + 15
        while len(held := self.leftovers()) < 9:
            assert time.monotonic() < deadline, held
            time.sleep(0.2)

    def delete(self) -> int:
        answer = self.send(0, "DELETE", f"/devices/{self.owner.device_id}")
        assert answer.status_code == 202, answer.text
        job_id: int = answer.json()["job"]["id"]
        return job_id

    def until_done(self, which: int, job_id: int, limit_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + limit_s
        while True:
            job: dict[str, Any] = self.send(which, "GET", f"/jobs/{job_id}").json()
            if job["status"] == "done":
                return job
            assert time.monotonic() < deadline, job
            time.sleep(0.2)


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    more = {"IOTFLOW_JOBS__SETTLE_S": "3", "IOTFLOW_RATE_LIMITS__ENABLED": "true"}
    with four_stores() as settings, ExitStack() as stack:
        first, second = (
            stack.enter_context(served(tmp_path / name, **settings, **more)) for name in "ab"
        )
        found = Deployment((first, second), settings, register(first.url))
        found.furnish()
        found.until_furnished()
        yield found


def test_nothing_is_left_of_a_device_in_any_store(deployment: Deployment) -> None:
    statuses: list[int] = []
    let_in_at = 0.0

    def submit_until_refused() -> None:
        nonlocal let_in_at
        deadline = time.monotonic() + 10
        while (asked_at := time.monotonic()) < deadline:
            body = {"data": {"late": 1}}
            key = deployment.owner.key
            sent = deployment.send(1, "POST", "/telemetry", json=body, headers=key)
            statuses.append(sent.status_code)
            if sent.status_code not in (201, 429):
                return
            let_in_at = asked_at

    submitter = threading.Thread(target=submit_until_refused)
    submitter.start()
    while not statuses:
        assert submitter.is_alive()
        time.sleep(0.01)
    job_id = deployment.delete()
    deleted_at = time.monotonic()
    submitter.join()
    assert let_in_at - deleted_at < 1.0, "the other replica knows it within a second"
    assert (statuses[0], statuses[-1]) == (201, 401)
    device_id = deployment.owner.device_id
    # Each replica remembers for a second whose a device is.
    time.sleep(max(0.0, deleted_at + 1.0 - time.monotonic()))
    for which in (0, 1):
        for path in (f"/devices/{device_id}", f"/telemetry/{device_id}/latest"):
            answer = deployment.send(which, "GET", path)
            assert answer.status_code == 404, (which, path)
    job = deployment.until_done(1, job_id, 20)
    assert job["counts"]["points"] is None, "Cassandra does not count"
    assert job["counts"]["events"] >= 6
    assert deployment.leftovers() == {}
    time.sleep(2)
    assert deployment.leftovers() == {}
    body = {"name": "another"}
    made = deployment.send(1, "POST", "/devices/register", json=body).json()
    assert made["device"]["id"] > device_id


def test_another_replica_finishes_what_a_killed_one_began(deployment: Deployment) -> None:
    job_id = deployment.delete()
    deployment.services[0].kill()
    deployment.until_done(1, job_id, 60)
    assert deployment.leftovers() == {}
    refused = deployment.send(1, "GET", "/devices/status", headers=deployment.owner.key)
    assert refused.status_code == 401
