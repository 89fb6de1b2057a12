"""Who did what with accounts, keys and roles can be looked up, and tells no secret."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import httpx
import pytest

from iotflow.cli.operate import create_admin
from iotflow.settings import RateLimitSettings, Settings
from tests.api.conftest import PASSWORD, Account, create_account, create_device, serving

API = "/api/v1"
LONGEST_S = 10.0
NEW_PASSWORD = "another correct horse"


@pytest.fixture(scope="module")
async def service(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[httpx.AsyncClient, dict[str, str]]]:
    """A client, and the headers of an admin."""
    directory = tmp_path_factory.mktemp("audit")
    settings = Settings.load(data_dir=directory, rate_limits=RateLimitSettings(enabled=False))
    await asyncio.to_thread(create_admin, "root", "root@example.com", PASSWORD, directory)
    async with serving(settings) as client:
        login = {"username": "root", "password": PASSWORD}
        session = (await client.post(f"{API}/auth/login", json=login)).json()
        yield client, {"Authorization": f"Bearer {session['access_token']}"}


async def succeed(
    client: httpx.AsyncClient, method: str, path: str, by: dict[str, str], body: Any = None
) -> Any:
    answer = await client.request(method, API + path, json=body, headers=by)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


async def do_everything(client: httpx.AsyncClient, admin: dict[str, str]) -> Account:
    """What is to be looked up later, all of it at one account."""
    call = partial(succeed, client)
    ada = await create_account(client)
    wrong = {"username": ada.username, "password": "a wrong horse"}
    assert (await client.post(f"{API}/auth/login", json=wrong)).status_code == 401
    device = await create_device(client, ada)
    keys = f"/devices/{device.id}/keys"
    (first,) = (await call("GET", keys, ada.headers))["items"]
    await call("POST", keys, ada.headers, {"overlap": 60})
    await call("DELETE", f"{keys}/{first['id']}", ada.headers)
    body = {"name": "a token", "scopes": ["read"]}
    token = await call("POST", "/auth/tokens", ada.headers, body)
    await call("DELETE", f"/auth/tokens/{token['id']}", ada.headers)
    await call("PUT", f"/users/{ada.id}", admin, {"role": "admin"})
    await call("PUT", f"/users/{ada.id}", admin, {"role": "user"})
    await call("PATCH", f"/users/{ada.id}/deactivate", admin)
    await call("PATCH", f"/users/{ada.id}/activate", admin)
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    login = {"username": ada.username, "password": PASSWORD}
    session = await call("POST", "/auth/login", {}, login)
    await call(
        "POST", "/auth/password", {"Authorization": f"Bearer {session['access_token']}"}, body
    )
    await call("DELETE", f"/devices/{device.id}", admin)
    return ada


async def test_every_change_of_access_is_looked_up(
    service: tuple[httpx.AsyncClient, dict[str, str]],
) -> None:
    client, admin = service
    ada = await do_everything(client, admin)
    params = {"user_id": ada.id, "limit": 1000}
    expected = {
        "user.registered": 1,
        "user.logged_in": 2,
        "user.login_failed": 1,
        "user.role_changed": 2,
        "user.deactivated": 1,
        "user.activated": 1,
        "user.password_changed": 1,
        "token.created": 1,
        "token.deleted": 1,
        "device.deleted": 1,
    }
    async with asyncio.timeout(LONGEST_S):
        while True:
            answer = await client.get(f"{API}/events", params=params, headers=admin)
            items = answer.json()["items"]
            found = [item["event_type"] for item in items]
            if "device.deleted" in found:
                break
            await asyncio.sleep(0.05)
    assert {kind: found.count(kind) for kind in expected} == expected
    roles = [item["details"] for item in items if item["event_type"] == "user.role_changed"]
    assert [details["role"] for details in roles] == ["user", "admin"]
    for kind in ("user.role_changed", "user.deactivated", "user.activated", "device.deleted"):
        by = [item["details"]["by"] for item in items if item["event_type"] == kind]
        assert set(by) == {"1"}, f"who did it: {kind}"
    for kind in ("user.logged_in", "user.login_failed", "user.password_changed"):
        addresses = [i["details"]["address"] for i in items if i["event_type"] == kind]
        assert all(addresses), f"where from: {kind}"
    for secret in (PASSWORD, NEW_PASSWORD, "a wrong horse"):
        assert secret not in answer.text


async def test_a_session_that_ends_is_told_once(
    service: tuple[httpx.AsyncClient, dict[str, str]],
) -> None:
    client, admin = service
    ada = await create_account(client)
    call = partial(succeed, client)
    first = {"refresh_token": ada.refresh_token}
    await call("POST", "/auth/refresh", {}, first)
    for _ in range(2):
        assert (await client.post(f"{API}/auth/refresh", json=first)).status_code == 401
    login = {"username": ada.username, "password": PASSWORD}
    session = await call("POST", "/auth/login", {}, login)
    for token in (session["refresh_token"], session["refresh_token"], "iotr_unknown"):
        body = {"refresh_token": token}
        assert (await client.post(f"{API}/auth/logout", json=body)).status_code == 204
    params = {"user_id": ada.id, "limit": 1000}
    async with asyncio.timeout(LONGEST_S):
        while True:
            answer = await client.get(f"{API}/events", params=params, headers=admin)
            found = {item["event_type"]: item for item in answer.json()["items"]}
            if "user.logged_out" in found:
                break
            await asyncio.sleep(0.05)
    types = [item["event_type"] for item in answer.json()["items"]]
    for kind in ("user.refresh_token_reused", "user.logged_out"):
        assert types.count(kind) == 1
        assert found[kind]["details"]["address"], f"where from: {kind}"


async def test_keys_of_a_device_that_is_there_too(
    service: tuple[httpx.AsyncClient, dict[str, str]],
) -> None:
    client, _ = service
    ada = await create_account(client)
    device = await create_device(client, ada)
    keys = f"{API}/devices/{device.id}/keys"
    (first,) = (await client.get(keys, headers=ada.headers)).json()["items"]
    second = await client.post(keys, json={"overlap": 60}, headers=ada.headers)
    await client.delete(f"{keys}/{first['id']}", headers=ada.headers)
    params = {"device_id": device.id}
    async with asyncio.timeout(LONGEST_S):
        while True:
            answer = await client.get(f"{API}/events", params=params, headers=ada.headers)
            found = [item["event_type"] for item in answer.json()["items"]]
            if "device.key_revoked" in found:
                break
            await asyncio.sleep(0.05)
    assert found == ["device.key_revoked", "device.key_created", "device.registered"]
    assert device.api_key not in answer.text
    assert second.json()["api_key"] not in answer.text


async def test_failures_are_bounded_by_the_limit_and_name_nobody(
    service: tuple[httpx.AsyncClient, dict[str, str]],
) -> None:
    client, admin = service
    guess = {"username": "nobody-of-that-name", "password": "x" * 20}
    for _ in range(3):
        await client.post(f"{API}/auth/login", json=guess)
    answer = await client.get(f"{API}/events", params={"limit": 1000}, headers=admin)
    assert "nobody-of-that-name" not in answer.text
