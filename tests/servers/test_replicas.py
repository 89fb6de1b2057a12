"""Several processes over the same stores behave as one."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.process.conftest import Credentials, Served, register, served
from tests.servers.redis_server import RedisServer
from tests.servers.stores import four_stores

pytestmark = pytest.mark.servers
API = "/api/v1"
SUBMITS = 4_000
IN_FLIGHT = 64


@dataclass(frozen=True)
class Replicas:
    """Two services, and a device that both know."""

    services: tuple[Served, Served]
    credentials: Credentials

    def post(self, which: int, path: str, body: object = None, **headers: str) -> httpx.Response:
        url = f"{self.services[which].url}{API}{path}"
        return httpx.post(url, json=body, headers=headers or self.credentials.key, timeout=10)

    def get(self, which: int, path: str, **headers: str) -> httpx.Response:
        url = f"{self.services[which].url}{API}{path}"
        return httpx.get(url, headers=headers or self.credentials.key, timeout=10)


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[Replicas]:
    with four_stores() as settings, ExitStack() as stack:
        first, second = (
            stack.enter_context(served(tmp_path / name, **settings)) for name in ("a", "b")
        )
        yield Replicas((first, second), register(first.url))


def seconds_let_in(ask: Callable[[], httpx.Response]) -> float:
    """How much later than now the last request was begun that was not refused."""
    began, last_s = time.monotonic(), 0.0
    while True:
        asked_s = time.monotonic() - began
        if ask().status_code in (401, 403):
            return last_s
        last_s = asked_s
        assert asked_s < 5, "it was never refused"
        time.sleep(0.02)


def test_a_key_is_known_and_revoked_everywhere_within_a_second(replicas: Replicas) -> None:
    device = replicas.credentials.device_id
    for which in (0, 1):
        assert replicas.post(which, "/telemetry", {"data": {"a": which}}).status_code == 201
    listed = replicas.get(0, f"/devices/{device}/keys", **replicas.credentials.bearer).json()
    revoked = httpx.delete(
        f"{replicas.services[0].url}{API}/devices/{device}/keys/{listed['items'][0]['id']}",
        headers=replicas.credentials.bearer,
    )
    assert revoked.status_code == 204
    assert seconds_let_in(lambda: replicas.get(1, "/devices/status")) < 1.0
    assert replicas.get(0, "/devices/status").status_code == 401


def test_latest_is_the_newest_whoever_wrote_it(replicas: Replicas) -> None:
    device = replicas.credentials.device_id
    base_ms = int(time.time() * 1000) - 60_000

    def submit(which: int, seconds: int, value: int) -> None:
        body = {"data": {"a": value}, "timestamp": base_ms + seconds * 1000}
        assert replicas.post(which, "/telemetry", body).status_code == 201

    def latest(which: int) -> int:
        answer = replicas.get(which, f"/telemetry/{device}/latest")
        value: int = answer.json()["data"]["a"]
        return value

    submit(0, 1, 1)
    assert [latest(0), latest(1)] == [1, 1]
    submit(1, 5, 5)
    submit(0, 3, 3)
    assert [latest(0), latest(1)] == [5, 5]
    gone = httpx.delete(
        f"{replicas.services[1].url}{API}/telemetry/{device}",
        params={"start_time": base_ms + 4_000, "end_time": base_ms + 6_000},
        headers=replicas.credentials.bearer,
    )
    assert gone.status_code == 200, gone.text
    assert [latest(0), latest(1)] == [3, 3]
    submit(0, 5, 6)
    assert [latest(1), latest(0)] == [6, 6]


def test_a_limit_counts_for_both(tmp_path: Path) -> None:
    limit = {"IOTFLOW_RATE_LIMITS__ENABLED": "true", "IOTFLOW_RATE_LIMITS__INGEST": "40/3600"}
    with four_stores() as settings, ExitStack() as stack:
        services = [
            stack.enter_context(served(tmp_path / name, **settings, **limit)) for name in "ab"
        ]
        credentials = register(services[0].url)
        statuses = [
            httpx.post(
                f"{services[number % 2].url}{API}/telemetry",
                json={"data": {"a": number}},
                headers=credentials.key,
            ).status_code
            for number in range(60)
        ]
    assert statuses.count(201) in (40, 41), "a process may be one behind"
    assert statuses.count(429) == 60 - statuses.count(201)


async def submit_without_times(urls: list[str], key: dict[str, str]) -> dict[int, str]:
    """Submits of one device at once, through all of these; number -> timestamp of each 201."""
    stored: dict[int, str] = {}
    numbers = iter(range(SUBMITS))
    async with httpx.AsyncClient(headers=key, timeout=30) as client:

        async def work() -> None:
            for number in numbers:
                url = f"{urls[number % len(urls)]}{API}/telemetry"
                answer = await client.post(url, json={"data": {"number": number}})
                assert answer.status_code in (201, 429), answer.text
                if answer.status_code == 201:
                    stored[number] = answer.json()["timestamp"]
                else:
                    await asyncio.sleep(0.05)

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return stored


def history(url: str, credentials: Credentials) -> dict[int, str]:
    found: dict[int, str] = {}
    params: dict[str, str | int] = {"limit": 10_000, "start_time": "-1h"}
    with httpx.Client(base_url=f"{url}{API}", headers=credentials.key, timeout=30) as client:
        while True:
            page = client.get(f"/telemetry/{credentials.device_id}", params=params).json()
            for point in page["data"]:
                assert point["value"] not in found
                found[point["value"]] = point["timestamp"]
            if page["next_cursor"] is None:
                return found
            params = params | {"cursor": page["next_cursor"]}


def test_points_without_a_time_never_share_one(replicas: Replicas) -> None:
    urls = [service.url for service in replicas.services]
    stored = asyncio.run(submit_without_times(urls, replicas.credentials.key))
    assert len(stored) > SUBMITS / 10
    assert len(set(stored.values())) == len(stored)
    assert history(urls[1], replicas.credentials) == stored
    newest = max(stored, key=lambda number: stored[number])
    latest = replicas.get(0, f"/telemetry/{replicas.credentials.device_id}/latest").json()
    assert latest["data"]["number"] == newest


def test_points_without_a_time_never_share_one_without_the_cache(
    tmp_path: Path,
) -> None:
    redis = RedisServer(tmp_path / "redis")
    redis.start()
    with four_stores() as settings, ExitStack() as stack:
        stack.callback(redis.stop)
        settings |= {"IOTFLOW_CACHE__URL": redis.url}
        services = [stack.enter_context(served(tmp_path / name, **settings)) for name in "ab"]
        credentials = register(services[0].url)
        kill = threading.Timer(0.5, redis.kill)
        kill.start()
        urls = [service.url for service in services]
        stored = asyncio.run(submit_without_times(urls, credentials.key))
        kill.join()
        assert len(set(stored.values())) == len(stored) > SUBMITS / 10
        assert history(urls[1], credentials) == stored
        newest = max(stored, key=lambda number: stored[number])
        for url in urls:
            latest = httpx.get(
                f"{url}{API}/telemetry/{credentials.device_id}/latest", headers=credentials.key
            )
            assert latest.json()["data"]["number"] == newest


def test_a_key_revoked_while_the_cache_is_frozen_is_refused_within_a_second(
    tmp_path: Path,
) -> None:
    redis = RedisServer(tmp_path / "redis")
    redis.start()
    with four_stores() as settings, ExitStack() as stack:
        stack.callback(redis.stop)
        settings |= {"IOTFLOW_CACHE__URL": redis.url}
        first, second = (stack.enter_context(served(tmp_path / name, **settings)) for name in "ab")
        credentials = register(first.url)
        status = f"{API}/devices/status"
        assert httpx.get(f"{second.url}{status}", headers=credentials.key).status_code == 200
        keys = f"{first.url}{API}/devices/{credentials.device_id}/keys"
        key_id = httpx.get(keys, headers=credentials.bearer).json()["items"][0]["id"]
        redis.freeze()
        revoked = httpx.delete(f"{keys}/{key_id}", headers=credentials.bearer, timeout=10)
        assert revoked.status_code == 204
        let_in_s = seconds_let_in(
            lambda: httpx.get(f"{second.url}{status}", headers=credentials.key, timeout=10)
        )
        assert let_in_s < 1.0
        redis.thaw()
        until = time.monotonic() + 3
        while time.monotonic() < until:
            for service in (first, second):
                answer = httpx.get(f"{service.url}{status}", headers=credentials.key, timeout=10)
                assert answer.status_code == 401, "the thawed cache let it in again"


def test_a_cache_that_comes_back_with_old_data_is_not_believed(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path / "redis", {"dbfilename": "old.rdb"})
    redis.start()
    with four_stores() as settings, ExitStack() as stack:
        stack.callback(redis.stop)
        settings |= {"IOTFLOW_CACHE__URL": redis.url}
        service = stack.enter_context(served(tmp_path / "a", **settings))
        credentials = register(service.url)
        base_ms = int(time.time() * 1000) - 60_000

        def submit(value: int) -> None:
            body = {"data": {"a": value}, "timestamp": base_ms + value}
            sent = httpx.post(
                f"{service.url}{API}/telemetry", json=body, headers=credentials.key, timeout=10
            )
            assert sent.status_code == 201, sent.text

        def latest() -> tuple[int, str]:
            url = f"{service.url}{API}/telemetry/{credentials.device_id}/latest"
            answer = httpx.get(url, headers=credentials.key, timeout=10)
            return answer.json()["data"]["a"], answer.headers["x-cache"]

        submit(1)
        latest()
        assert latest() == (1, "hit")
        redis.client.save()
        submit(2)
        redis.kill()
        submit(3)
        redis.start()
        until = time.monotonic() + 4
        while time.monotonic() < until:
            assert latest()[0] == 3
        until = time.monotonic() + 10
        while latest() != (3, "hit"):
            assert time.monotonic() < until, "it is not used again"


async def load_while_frozen(replicas: Replicas, base_ms: int) -> None:
    """Submits through the first, which is frozen in the middle; the second goes on meanwhile."""
    first, second = replicas.services
    device = replicas.credentials.device_id
    offsets = iter(range(600))
    async with httpx.AsyncClient(headers=replicas.credentials.key, timeout=30) as client:

        async def work() -> None:
            for offset in offsets:
                body = {"data": {"a": offset}, "timestamp": base_ms + offset}
                answer = await client.post(f"{first.url}{API}/telemetry", json=body)
                assert answer.status_code in (201, 503), answer.text

        workers = [asyncio.create_task(work()) for _ in range(16)]
        await asyncio.sleep(0.3)
        first.process.send_signal(signal.SIGSTOP)
        try:
            await client.get(f"{second.url}{API}/telemetry/{device}/latest")
            gone = await client.delete(
                f"{second.url}{API}/telemetry/{device}",
                params={"start_time": base_ms, "end_time": base_ms + 10_000},
                headers=replicas.credentials.bearer,
            )
            assert gone.status_code == 200, gone.text
            await client.get(f"{second.url}{API}/telemetry/{device}/latest")
            await asyncio.sleep(1.0)
        finally:
            first.process.send_signal(signal.SIGCONT)
        await asyncio.gather(*workers)


def test_a_process_that_was_frozen_leaves_no_stale_latest(replicas: Replicas) -> None:
    base_ms = int(time.time() * 1000) - 3_600_000
    asyncio.run(load_while_frozen(replicas, base_ms))
    device = replicas.credentials.device_id
    until = time.monotonic() + 3
    while time.monotonic() < until:
        for which in (0, 1):
            newest = replicas.get(which, f"/telemetry/{device}?limit=1&start_time=-2h").json()
            latest = replicas.get(which, f"/telemetry/{device}/latest").json()
            assert latest["timestamp"] == newest["data"][0]["timestamp"]
            assert latest["data"]["a"] == newest["data"][0]["value"]


def test_workers_share_a_port_and_their_metrics(tmp_path: Path) -> None:
    with (
        four_stores() as settings,
        served(tmp_path / "data", arguments=("--workers", "2"), **settings) as service,
    ):
        credentials = register(service.url)
        stored = asyncio.run(submit_without_times([service.url], credentials.key))
        assert history(service.url, credentials) == stored
        metrics = httpx.get(f"{service.url}/metrics").text
        submits = [
            line
            for line in metrics.splitlines()
            if line.startswith("iotflow_http_requests_total")
            and 'route="/api/v1/telemetry",' in line
            and 'status="201"' in line
        ]
        assert len(submits) == 2, "both workers have served"
        assert sum(float(line.rsplit(" ", 1)[1]) for line in submits) == len(stored)
