import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from iotflow.domain.limits import RatePolicy
from iotflow.settings import RateLimitSettings, Settings
from tests.api.conftest import PASSWORD, create_account, create_device, serving

API = "/api/v1"


@pytest.fixture
async def limited(tmp_path: Path) -> AsyncIterator[Any]:
    stack: list[Any] = []

    async def start(**policies: RatePolicy) -> httpx.AsyncClient:
        limits = RateLimitSettings.model_validate(policies)
        context = serving(Settings.load(data_dir=tmp_path, rate_limits=limits))
        stack.append(context)
        return await context.__aenter__()

    yield start
    for context in stack:
        await context.__aexit__(None, None, None)


def told(answer: httpx.Response, policy: str) -> int:
    """The seconds that a refusal says to wait, once it has said all that it must."""
    assert answer.status_code == 429, answer.text
    assert answer.json()["code"] == "rate_limited"
    assert f"'{policy}'" in answer.json()["detail"]
    assert answer.headers["ratelimit-policy"].startswith(f'"{policy}";q=')
    assert answer.headers["ratelimit"].startswith(f'"{policy}";r=0;t=')
    return int(answer.headers["retry-after"])


async def test_after_retry_after_a_submission_is_accepted(limited: Any) -> None:
    client = await limited(ingest=RatePolicy(5, 2))
    device = await create_device(client, await create_account(client))

    async def submit() -> httpx.Response:
        body = {"data": {"a": 1}}
        answer: httpx.Response = await client.post(
            f"{API}/telemetry", json=body, headers=device.headers
        )
        return answer

    answers = [await submit() for _ in range(6)]
    assert [answer.status_code for answer in answers] == [201] * 5 + [429]
    for _ in range(20):
        assert (await submit()).status_code == 429
    await asyncio.sleep(told(answers[-1], "ingest"))
    assert (await submit()).status_code == 201, "refused requests do not count"


async def test_concurrent_submissions_do_not_pass_the_limit(limited: Any) -> None:
    client = await limited(ingest=RatePolicy(10, 60))
    device = await create_device(client, await create_account(client))
    body = {"data": {"a": 1}}
    answers = await asyncio.gather(
        *(client.post(f"{API}/telemetry", json=body, headers=device.headers) for _ in range(30))
    )
    assert [answer.status_code for answer in answers].count(201) == 10


async def test_points_are_limited_as_well(limited: Any) -> None:
    client = await limited(points=RatePolicy(10, 60))
    device = await create_device(client, await create_account(client))
    body = {"data": {f"m{n}": n for n in range(6)}}
    first = await client.post(f"{API}/telemetry", json=body, headers=device.headers)
    second = await client.post(f"{API}/telemetry", json=body, headers=device.headers)
    assert first.status_code == 201
    told(second, "points")


async def test_a_device_does_not_spend_the_limit_of_another(limited: Any) -> None:
    client = await limited(ingest=RatePolicy(1, 60))
    account = await create_account(client)
    for _ in range(2):
        device = await create_device(client, account)
        sent = await client.post(
            f"{API}/telemetry", json={"data": {"a": 1}}, headers=device.headers
        )
        assert sent.status_code == 201


async def test_reads_and_writes_are_limited_apart(limited: Any) -> None:
    client = await limited(read=RatePolicy(3, 60), write=RatePolicy(2, 60))
    account = await create_account(client)
    for _ in range(3):
        assert (await client.get(f"{API}/users/me", headers=account.headers)).status_code == 200
    told(await client.get(f"{API}/users/me", headers=account.headers), "read")
    for _ in range(2):
        await create_device(client, account)
    body = {"name": "one too many"}
    refused = await client.post(f"{API}/devices/register", json=body, headers=account.headers)
    told(refused, "write")


async def test_registrations_and_sign_ins_are_limited_per_address(limited: Any) -> None:
    client = await limited(register=RatePolicy(1, 60), login=RatePolicy(2, 60))
    await create_account(client)
    body = {"username": "another", "email": "another@example.com", "password": PASSWORD}
    told(await client.post(f"{API}/auth/register", json=body), "register")
    login = {"username": "nobody", "password": PASSWORD}
    assert (await client.post(f"{API}/auth/login", json=login)).status_code == 401
    told(await client.post(f"{API}/auth/login", json=login), "login")


async def test_failed_sign_ins_are_limited_per_account(limited: Any) -> None:
    client = await limited(login_failures=RatePolicy(3, 2))
    account = await create_account(client)
    wrong = {"username": account.username, "password": "not the password"}
    right = {"username": account.email.upper(), "password": PASSWORD}
    for _ in range(3):
        assert (await client.post(f"{API}/auth/login", json=wrong)).status_code == 401
    refused = await client.post(f"{API}/auth/login", json=wrong)
    wait_s = told(refused, "login_failures")
    assert wait_s <= 2
    assert (await client.post(f"{API}/auth/login", json=right)).status_code in (200, 429)
    await asyncio.sleep(wait_s)
    assert (await client.post(f"{API}/auth/login", json=right)).status_code == 200
