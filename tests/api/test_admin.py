"""What administrators do through the API, and operators on the command line."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from iotflow.cli.operate import create_admin, invite, reset_password
from iotflow.errors import InvalidInputError, NotFoundError
from iotflow.settings import AccountSettings, RateLimitSettings, RegistrationMode, Settings
from tests.api.conftest import PASSWORD, create_account, create_device, serving

API = "/api/v1"
NO_LIMITS = RateLimitSettings(enabled=False)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def sign_in(client: httpx.AsyncClient, username: str, password: str = PASSWORD) -> Any:
    login = {"username": username, "password": password}
    return await client.post(f"{API}/auth/login", json=login)


@pytest.fixture(scope="module")
async def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("admin")
    await asyncio.to_thread(create_admin, "root", "root@example.com", PASSWORD, data_dir)
    return data_dir


@pytest.fixture(scope="module")
async def service(data: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(Settings.load(data_dir=data, rate_limits=NO_LIMITS)) as client:
        yield client


@pytest.fixture(scope="module")
async def root(service: httpx.AsyncClient) -> dict[str, str]:
    return bearer((await sign_in(service, "root")).json()["access_token"])


async def test_devices_of_all_users_are_listed_filtered_and_paged(
    service: httpx.AsyncClient, root: dict[str, str]
) -> None:
    ada, eve = await create_account(service), await create_account(service)
    made = [await create_device(service, owner) for owner in (ada, eve, ada)]
    for path in ("/admin/devices", "/admin/devices/statuses"):
        seen: list[int] = []
        query: dict[str, Any] = {"limit": 2}
        while True:
            page = (await service.get(API + path, params=query, headers=root)).json()
            seen += [item.get("id", item.get("device_id")) for item in page["items"]]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        assert seen == sorted(set(seen))
        assert {device.id for device in made} <= set(seen)
        own = await service.get(API + path, params={"user_id": eve.id}, headers=root)
        assert len(own.json()["items"]) == 1
    # A cursor of one query is none of another.
    first = (await service.get(f"{API}/admin/devices", params={"limit": 1}, headers=root)).json()
    other = {"cursor": first["next_cursor"], "user_id": ada.id}
    refused = await service.get(f"{API}/admin/devices", params=other, headers=root)
    assert refused.status_code == 422


async def test_any_device_is_read_changed_switched_off_and_deleted(
    service: httpx.AsyncClient, root: dict[str, str]
) -> None:
    device = await create_device(service, await create_account(service))
    path = f"{API}/admin/devices/{device.id}"
    assert (await service.get(path, headers=root)).json()["id"] == device.id
    changed = await service.put(path, json={"location": "roof"}, headers=root)
    assert changed.json()["location"] == "roof"
    off = await service.put(f"{path}/status", json={"status": "inactive"}, headers=root)
    assert off.json()["status"] == "inactive"
    point = {"data": {"t": 1}}
    refused = await service.post(f"{API}/telemetry", json=point, headers=device.headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "device_inactive")
    bad = await service.put(f"{path}/status", json={"status": "broken"}, headers=root)
    assert bad.status_code == 422
    deleted = await service.delete(path, headers=root)
    assert deleted.status_code == 202
    assert deleted.json()["job"].keys() == {"id", "status"}
    for method, body in (("GET", None), ("PUT", {}), ("DELETE", None)):
        gone = await service.request(method, path, json=body, headers=root)
        assert gone.status_code == 404, method


async def test_the_numbers_are_those_of_the_registry(
    service: httpx.AsyncClient, root: dict[str, str]
) -> None:
    before = (await service.get(f"{API}/admin/stats", headers=root)).json()
    ada = await create_account(service)
    device = await create_device(service, ada)
    await service.post(f"{API}/groups", json={"name": "x"}, headers=ada.headers)
    path = f"{API}/admin/devices/{device.id}/status"
    await service.put(path, json={"status": "maintenance"}, headers=root)
    await service.patch(f"{API}/users/{ada.id}/deactivate", headers=root)
    after = (await service.get(f"{API}/admin/stats", headers=root)).json()
    grown = {
        (part, name): after[part][name] - before[part][name]
        for part in ("users", "devices")
        for name in after[part]
    }
    assert grown == {
        ("users", "total"): 1,
        ("users", "active"): 0,
        ("users", "admins"): 0,
        ("devices", "total"): 1,
        ("devices", "active"): 0,
        ("devices", "inactive"): 0,
        ("devices", "maintenance"): 1,
    }
    assert after["groups"] - before["groups"] == 1


def by(mode: RegistrationMode, data_dir: Path) -> Settings:
    accounts = AccountSettings(registration=mode)
    return Settings.load(data_dir=data_dir, rate_limits=NO_LIMITS, accounts=accounts)


async def register(client: httpx.AsyncClient, name: str, **more: Any) -> httpx.Response:
    body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD} | more
    return await client.post(f"{API}/auth/register", json=body)


async def test_where_registration_is_closed_nobody_registers(data: Path) -> None:
    async with serving(by("closed", data)) as client:
        for more in ({}, {"invitation": "ioti_x"}):
            answer = await register(client, "closed-out", **more)
            assert (answer.status_code, answer.json()["code"]) == (403, "registration_closed")


async def test_an_invitation_lets_one_person_in_once(data: Path) -> None:
    async with serving(by("invitation", data)) as client:
        root = bearer((await sign_in(client, "root")).json()["access_token"])
        answer = await register(client, "guest")
        assert (answer.status_code, answer.json()["code"]) == (403, "invitation_required")
        made = await client.post(f"{API}/admin/invitations", headers=root)
        assert made.status_code == 201
        code = made.json()["invitation"]
        # A name that is taken does not use it up.
        assert (await register(client, "root", invitation=code)).status_code == 409
        answers = await asyncio.gather(
            *(register(client, f"guest-{n}", invitation=code) for n in range(5))
        )
        assert sorted(answer.status_code for answer in answers) == [201] + [403] * 4
        again = await register(client, "late", invitation=code)
        assert (again.status_code, again.json()["code"]) == (403, "invalid_invitation")


async def test_the_operator_invites_and_resets_passwords_without_a_server(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await asyncio.to_thread(invite, 1, data)
    code = capsys.readouterr().out.strip()
    async with serving(by("invitation", data)) as client:
        assert (await register(client, "invited", invitation=code)).status_code == 201
        token = (await sign_in(client, "invited")).json()["access_token"]
        assert (await client.get(f"{API}/users/me", headers=bearer(token))).status_code == 200
        # While the service runs, as an operator would.
        await asyncio.to_thread(reset_password, "INVITED", "a brand new password", data)
        await asyncio.sleep(1)
        assert (await client.get(f"{API}/users/me", headers=bearer(token))).status_code == 401
        assert (await sign_in(client, "invited")).status_code == 401
        assert (await sign_in(client, "invited", "a brand new password")).status_code == 200
    with pytest.raises(NotFoundError):
        await asyncio.to_thread(reset_password, "nobody-here", "a brand new password", data)
    with pytest.raises(InvalidInputError):
        await asyncio.to_thread(reset_password, "invited", "short", data)
