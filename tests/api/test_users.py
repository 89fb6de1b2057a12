"""Users as they and administrators see them: lists, changes, deactivation, deletion."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from iotflow.cli.operate import create_admin
from iotflow.settings import QuotaSettings, RateLimitSettings, Settings
from tests.api.conftest import PASSWORD, Account, create_account, create_device, serving

API = "/api/v1"
A_SECOND = 1.0


class Service:
    """Two replicas on one registry, and an administrator."""

    def __init__(self, here: httpx.AsyncClient, there: httpx.AsyncClient, admin: Account) -> None:
        self.here, self.there, self.admin = here, there, admin

    async def call(self, method: str, path: str, by: Account, **body: Any) -> httpx.Response:
        json = body or None
        return await self.here.request(method, API + path, headers=by.headers, json=json)


async def sign_in(client: httpx.AsyncClient, username: str) -> Account:
    login = {"username": username, "password": PASSWORD}
    session = (await client.post(f"{API}/auth/login", json=login)).json()
    user = session["user"]
    return Account(
        user["id"], username, user["email"], session["access_token"], session["refresh_token"]
    )


@pytest.fixture(scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    data_dir: Path = tmp_path_factory.mktemp("users")
    settings = Settings.load(data_dir=data_dir, rate_limits=RateLimitSettings(enabled=False))
    await asyncio.to_thread(create_admin, "root", "root@example.com", PASSWORD, data_dir)
    async with serving(settings) as here, serving(settings) as there:
        yield Service(here, there, await sign_in(here, "root"))


async def test_one_sees_oneself_and_an_admin_sees_anyone(service: Service) -> None:
    ada, eve = await create_account(service.here), await create_account(service.here)
    for caller in (ada, service.admin):
        answer = await service.call("GET", f"/users/{ada.id}", caller)
        assert answer.json()["username"] == ada.username
    for path in (f"/users/{ada.id}", f"/users/{2**40}"):
        assert (await service.call("GET", path, eve)).status_code == 404
    assert (await service.call("GET", f"/users/{2**40}", service.admin)).status_code == 404


async def test_one_changes_name_and_address_and_what_is_left_out_stays(service: Service) -> None:
    ada = await create_account(service.here)
    renamed = await service.call("PUT", f"/users/{ada.id}", ada, username=f"{ada.username}-x")
    assert renamed.json()["username"] == f"{ada.username}-x"
    assert renamed.json()["email"] == ada.email
    seen = await service.call("GET", "/users/me", ada)
    assert seen.json() == renamed.json()
    moved = await service.call("PUT", f"/users/{ada.id}", ada, email="moved@example.com")
    assert moved.json()["email"] == "moved@example.com"
    assert (await sign_in(service.here, "moved@example.com")).id == ada.id
    same = await service.call("PUT", f"/users/{ada.id}", ada, username=f"{ada.username}-X")
    assert same.status_code == 200, "one's own name in another case is not taken"


async def test_changes_that_are_refused(service: Service) -> None:
    ada, eve = await create_account(service.here), await create_account(service.here)
    path = f"/users/{ada.id}"
    cases: list[tuple[Account, dict[str, Any], int, str]] = [
        (ada, {"username": eve.username.upper()}, 409, "username_taken"),
        (ada, {"email": eve.email.upper()}, 409, "email_taken"),
        (ada, {"role": "admin"}, 403, "not_allowed"),
        (ada, {"username": "a b"}, 422, "validation_failed"),
        (ada, {"username": None}, 422, "validation_failed"),
        (ada, {"is_active": False}, 422, "validation_failed"),
        (eve, {"username": "stolen"}, 404, "not_found"),
        (service.admin, {"role": "emperor"}, 422, "validation_failed"),
    ]
    for caller, body, status, code in cases:
        answer = await service.call("PUT", path, caller, **body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), body
    seen = await service.call("GET", path, ada)
    assert (seen.json()["username"], seen.json()["role"]) == (ada.username, "user")


async def test_an_admin_gives_and_takes_roles_but_not_the_own(service: Service) -> None:
    ada = await create_account(service.here)
    path = f"/users/{ada.id}"
    assert (await service.call("GET", "/users", ada)).status_code == 403
    assert (await service.call("PUT", path, service.admin, role="admin")).status_code == 200
    assert (await service.call("GET", "/users", ada)).status_code == 200
    assert (await service.call("PUT", path, service.admin, role="user")).status_code == 200
    assert (await service.call("GET", "/users", ada)).status_code == 403
    own = f"/users/{service.admin.id}"
    for method, way, body in (
        ("PUT", own, {"role": "user"}),
        ("PATCH", f"{own}/deactivate", {}),
        ("DELETE", own, {}),
    ):
        answer = await service.call(method, way, service.admin, **body)
        assert (answer.status_code, answer.json()["code"]) == (409, "own_account")


async def test_lists_are_filtered_and_paged(service: Service) -> None:
    made = [await create_account(service.here) for _ in range(3)]
    found: list[int] = []
    query: dict[str, Any] = {"limit": 2, "role": "user", "q": "USER-"}
    while True:
        page = await service.here.get(f"{API}/users", params=query, headers=service.admin.headers)
        found += [user["id"] for user in page.json()["items"]]
        if page.json()["next_cursor"] is None:
            break
        query["cursor"] = page.json()["next_cursor"]
    assert found == sorted(set(found))
    assert {account.id for account in made} <= set(found)
    assert service.admin.id not in found
    one = {"q": made[0].email}
    page = await service.here.get(f"{API}/users", params=one, headers=service.admin.headers)
    assert made[0].id in [user["id"] for user in page.json()["items"]]
    wild = await service.here.get(f"{API}/users", params={"q": "%"}, headers=service.admin.headers)
    assert wild.json()["items"] == []


async def test_deactivation_stops_sessions_tokens_and_devices_everywhere_within_a_second(
    service: Service,
) -> None:
    ada = await create_account(service.here)
    device = await create_device(service.here, ada)
    body = {"name": "x", "scopes": ["read"]}
    token = (await service.call("POST", "/auth/tokens", ada, **body)).json()["token"]
    personal = replace(ada, access_token=token)
    point = {"data": {"t": 1}}
    replicas = (service.here, service.there)

    async def statuses() -> set[int]:
        found: set[int] = set()
        for replica in replicas:
            for account in (ada, personal):
                answer = await replica.get(f"{API}/users/me", headers=account.headers)
                found.add(answer.status_code)
        # What the embedded cache knows of keys is not shared: that is a cache server's part.
        answer = await service.here.post(f"{API}/telemetry", json=point, headers=device.headers)
        return found | {answer.status_code}

    assert await statuses() == {200, 201}
    off = await service.call("PATCH", f"/users/{ada.id}/deactivate", service.admin)
    assert (off.status_code, off.json()["is_active"]) == (200, False)
    await asyncio.sleep(A_SECOND)
    assert await statuses() == {401, 403}
    login = {"username": ada.username, "password": PASSWORD}
    assert (await service.here.post(f"{API}/auth/login", json=login)).status_code == 401
    refresh = {"refresh_token": ada.refresh_token}
    assert (await service.here.post(f"{API}/auth/refresh", json=refresh)).status_code == 401

    on = await service.call("PATCH", f"/users/{ada.id}/activate", service.admin)
    assert on.json()["is_active"] is True
    await asyncio.sleep(A_SECOND)
    # The devices are back; sessions and tokens are made anew.
    accepted = await service.here.post(f"{API}/telemetry", json=point, headers=device.headers)
    assert accepted.status_code == 201
    for replica in replicas:
        assert (await replica.get(f"{API}/users/me", headers=ada.headers)).status_code == 401
    assert (await sign_in(service.here, ada.username)).id == ada.id


async def test_a_deleted_user_is_gone_and_the_rest_is_a_job(service: Service) -> None:
    ada = await create_account(service.here)
    device = await create_device(service.here, ada)
    answer = await service.call("DELETE", f"/users/{ada.id}", service.admin)
    assert answer.status_code == 202
    job = answer.json()["job"]
    assert (await service.call("GET", f"/jobs/{job['id']}", service.admin)).status_code == 200
    assert (await service.call("GET", "/users/me", ada)).status_code == 401
    gone = await service.call("GET", f"/users/{ada.id}", service.admin)
    assert gone.status_code == 404
    refused = await service.here.post(
        f"{API}/telemetry", json={"data": {"t": 1}}, headers=device.headers
    )
    assert refused.status_code == 401
    again = await service.call("DELETE", f"/users/{ada.id}", service.admin)
    assert again.status_code == 404


async def test_a_user_has_no_more_devices_and_groups_than_the_quota(data_dir: Path) -> None:
    settings = Settings.load(
        data_dir=data_dir,
        rate_limits=RateLimitSettings(enabled=False),
        quotas=QuotaSettings(devices=3, groups=2),
    )
    async with serving(settings) as client:
        ada, eve = await create_account(client), await create_account(client)

        async def post(path: str, body: Any) -> httpx.Response:
            return await client.post(API + path, json=body, headers=ada.headers)

        for path, limit in (("/devices/register", 2), ("/groups", 2)):
            answers = await asyncio.gather(*(post(path, {"name": "x"}) for _ in range(limit)))
            assert {answer.status_code for answer in answers} == {201}
        two = await post("/devices/bulk", {"devices": [{"name": "x"}, {"name": "y"}]})
        assert (two.status_code, two.json()["code"]) == (409, "too_many_devices")
        answers = await asyncio.gather(*(post("/devices/register", {"name": "x"}) for _ in "123"))
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409]
        third = await post("/groups", {"name": "x"})
        assert (third.status_code, third.json()["code"]) == (409, "too_many_groups")
        await create_device(client, eve)
