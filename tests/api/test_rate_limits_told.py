"""How limits explain themselves: header fields, waiting that is true, devices of their own."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import randbelow
from typing import Any

import httpx
import pytest

from iotflow.domain.limits import RatePolicy
from iotflow.errors import ConfigurationError
from iotflow.limits.throttle import STUBBORN_REFUSALS
from iotflow.settings import RateLimitSettings, Settings
from tests.api.conftest import (
    PASSWORD,
    DeviceUnderTest,
    create_account,
    create_device,
    serving,
)
from tests.contract.servers import server_url, servers

API = "/api/v1"


@asynccontextmanager
async def limited(
    directory: Path, /, settings: dict[str, Any] | None = None, **policies: Any
) -> AsyncIterator[httpx.AsyncClient]:
    limits = RateLimitSettings.model_validate(policies)
    loaded = Settings.load(data_dir=directory, rate_limits=limits, **(settings or {}))
    async with serving(loaded) as client:
        yield client


async def submit(
    client: httpx.AsyncClient, device: DeviceUnderTest, points: int = 1
) -> httpx.Response:
    body = {"data": {f"m{n}": n for n in range(points)}}
    return await client.post(f"{API}/telemetry", json=body, headers=device.headers)


def standing(answer: httpx.Response) -> tuple[str, int, int, int, int]:
    """Policy, quota, window, what remains and the seconds until there is more."""
    policy = re.fullmatch(r'"(\w+)";q=(\d+);w=(\d+)', answer.headers["ratelimit-policy"])
    left = re.fullmatch(r'"(\w+)";r=(\d+);t=(\d+)', answer.headers["ratelimit"])
    assert policy
    assert left
    assert policy[1] == left[1]
    for name in ("ratelimit", "ratelimit-policy"):
        assert len(answer.headers.get_list(name)) == 1
    return policy[1], int(policy[2]), int(policy[3]), int(left[2]), int(left[3])


async def test_every_answer_tells_of_the_nearest_limit(data_dir: Path) -> None:
    policies = {"ingest": RatePolicy(10, 3600), "points": RatePolicy(100, 3600)}
    async with limited(data_dir, **policies, read=RatePolicy(50, 3600)) as client:
        device = await create_device(client, await create_account(client))
        first = standing(await submit(client, device))
        assert first[:4] == ("ingest", 10, 3600, 9)
        assert 1 <= first[4] <= 3600
        assert standing(await submit(client, device))[3] == 8
        assert standing(await submit(client, device, 60))[:4] == ("points", 100, 3600, 38)
        # A refusal of something else was counted too, and says so.
        refused = await submit(client, device, 0)
        assert refused.status_code == 422
        latest = f"{API}/telemetry/{device.id}/latest"
        for path in (latest, f"{API}/devices/{device.id}"):  # a hot route, and an ordinary one
            read = await client.get(path, headers=device.owner.headers)
            assert read.status_code == 200
            assert standing(read)[:3] == ("read", 50, 3600)
        assert standing(read)[3] == 48
        missing = await client.get(f"{API}/devices/999999", headers=device.owner.headers)
        assert (missing.status_code, standing(missing)[3]) == (404, 47)
        writes = await client.post(
            f"{API}/groups", json={"name": "g"}, headers=device.owner.headers
        )
        assert standing(writes)[0] == "write"


async def test_nothing_remains_of_a_limit_that_is_reached(data_dir: Path) -> None:
    async with limited(data_dir, ingest=RatePolicy(2, 3600)) as client:
        device = await create_device(client, await create_account(client))
        assert [standing(await submit(client, device))[3] for _ in range(3)] == [1, 0, 0]
        refused = await submit(client, device)
        assert refused.status_code == 429
        assert standing(refused)[4] == int(refused.headers["retry-after"])


async def test_who_is_not_counted_is_told_nothing(data_dir: Path) -> None:
    async with limited(data_dir, enabled=False) as client:
        device = await create_device(client, await create_account(client))
        for answer in (await submit(client, device), await client.get("/health")):
            assert answer.is_success
            assert "ratelimit" not in answer.headers
    async with limited(data_dir) as client:
        assert "ratelimit" not in (await client.get("/health/live")).headers


async def test_a_batch_above_the_limit_passes_an_empty_window(data_dir: Path) -> None:
    """Else its Retry-After would be a lie: waiting could never help."""
    async with limited(data_dir, points=RatePolicy(10, 1)) as client:
        device = await create_device(client, await create_account(client))
        assert (await submit(client, device, 20)).status_code == 201
        refused = await submit(client, device, 20)
        assert refused.status_code == 429
        await asyncio.sleep(int(refused.headers["retry-after"]))
        assert (await submit(client, device, 20)).status_code == 201


async def test_a_device_may_have_limits_of_its_own(data_dir: Path) -> None:
    devices = {"1": {"ingest": "4/3600"}, "2": {"points": "3/3600"}}
    async with limited(data_dir, ingest="2/3600", points="8/3600", devices=devices) as client:
        account = await create_account(client)
        one, two, three = [await create_device(client, account) for _ in range(3)]
        assert [one.id, two.id, three.id] == [1, 2, 3]
        accepted = {}
        for device in (one, two, three):
            sent = [(await submit(client, device, 2)).status_code for _ in range(5)]
            accepted[device.id] = sent.count(201)
        assert accepted == {1: 4, 2: 1, 3: 2}


@pytest.mark.parametrize(
    "value",
    ['{"42": {"ingest": "many"}}', '{"a": {"ingest": "1/1"}}', '{"42": {"read": "1/1"}}', "{"],
)
def test_wrong_limits_of_devices_stop_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IOTFLOW_RATE_LIMITS__DEVICES", value)
    with pytest.raises(ConfigurationError) as refused:
        Settings.load()
    assert str(refused.value).count("\n") == 0
    assert value not in str(refused.value)


def test_limits_of_devices_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IOTFLOW_RATE_LIMITS__DEVICES", '{"42": {"ingest": "5000/10"}}')
    limits = Settings.load().rate_limits.devices[42]
    assert (limits.ingest, limits.points) == (RatePolicy(5000, 10), None)


async def test_a_device_that_does_not_wait_is_throttled_and_recovers(data_dir: Path) -> None:
    async with limited(data_dir, ingest=RatePolicy(3, 1)) as client:
        account = await create_account(client)
        device, polite = [await create_device(client, account) for _ in range(2)]
        throttled: httpx.Response | None = None
        for _ in range(60):
            burst = await asyncio.gather(
                *(submit(client, device) for _ in range(3 * STUBBORN_REFUSALS))
            )
            told = [each for each in burst if each.status_code == 429]
            throttled = next((each for each in told if "Throttled" in each.text), None)
            if throttled is not None:
                break
            await asyncio.sleep(0.1)
        assert throttled is not None
        problem = throttled.json()
        assert problem["code"] == "rate_limited"
        assert "'ingest'" in problem["detail"]
        wait_s = int(throttled.headers["retry-after"])
        assert standing(throttled)[4] == wait_s
        assert (await submit(client, polite)).status_code == 201
        assert (await submit(client, device)).status_code == 429
        metrics = (await client.get("/metrics")).text
        assert re.search(r'iotflow_throttled_total\{policy="ingest"\} [1-9]', metrics)
        await asyncio.sleep(wait_s)
        assert (await submit(client, device)).status_code == 201


def redis_settings() -> dict[str, Any]:
    """A Redis whose keys meet those of no other run: subjects are told apart by device."""
    return {"cache": {"url": server_url("IOTFLOW_TEST_REDIS_URL")}}


@servers
async def test_retry_after_is_true_on_redis_for_two_replicas(data_dir: Path) -> None:
    """Each knows of the other's submissions, and accepts what comes when it said to come."""
    settings = redis_settings()
    window_s = 2 + randbelow(2)
    async with (
        limited(data_dir, settings, ingest=RatePolicy(6, window_s)) as one,
        limited(data_dir, settings, ingest=RatePolicy(6, window_s)) as other,
    ):
        account = await create_account(one)
        device = await create_device(one, account)
        for _ in range(3):
            accepted = 0
            for turn in range(40):
                replica = (one, other)[turn % 2]
                answer = await submit(replica, device)
                if answer.status_code == 429:
                    break
                accepted += 1
            assert answer.status_code == 429
            assert accepted <= 8, "what one replica lets in counts for the other"
            await asyncio.sleep(int(answer.headers["retry-after"]))
            assert (await submit(replica, device)).status_code == 201


async def test_addresses_behind_a_trusted_proxy_are_limited_apart(data_dir: Path) -> None:
    async def statuses(client: httpx.AsyncClient) -> list[int]:
        login = {"username": "nobody", "password": PASSWORD}
        answers = [
            await client.post(
                f"{API}/auth/login", json=login, headers={"X-Forwarded-For": f"192.0.2.{n}"}
            )
            for n in (1, 2, 3, 1)
        ]
        return [answer.status_code for answer in answers]

    trusted = {"trusted_proxies": "127.0.0.1/32"}
    limits = {"login": RatePolicy(1, 3600)}
    async with limited(data_dir, trusted, **limits) as client:
        assert await statuses(client) == [401, 401, 401, 429]
    async with limited(data_dir, **limits) as client:
        assert await statuses(client) == [401, 429, 429, 429]


@pytest.mark.parametrize("value", ["proxy.example", "10.0.0.1/8", "10.0.0.0/8,x"])
def test_proxies_are_networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IOTFLOW_TRUSTED_PROXIES", value)
    with pytest.raises(ConfigurationError, match="TRUSTED_PROXIES"):
        Settings.load()
