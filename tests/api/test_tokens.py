"""Personal tokens, and what a change of password ends."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from iotflow.errors import ConfigurationError
from iotflow.settings import QuotaSettings, RateLimitSettings, Settings
from tests.api.conftest import (
    PASSWORD,
    Account,
    DeviceUnderTest,
    NewAccount,
    create_account,
    serving,
)

API = "/api/v1"
NEW = "another good password"
NO_LIMITS = RateLimitSettings(enabled=False)
# By when an end must hold on every replica.
A_SECOND = 1.0


async def create_token(
    client: httpx.AsyncClient, account: Account, scopes: list[str], **fields: Any
) -> dict[str, Any]:
    body = {"name": "dashboard", "scopes": scopes} | fields
    answer = await client.post(f"{API}/auth/tokens", json=body, headers=account.headers)
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def me(client: httpx.AsyncClient, token: str) -> httpx.Response:
    return await client.get(f"{API}/users/me", headers=bearer(token))


async def test_a_token_is_shown_once_and_opens_what_its_user_may(
    client: httpx.AsyncClient, new_account: NewAccount
) -> None:
    account = await new_account()
    created = await create_token(client, account, ["read", "write"])
    assert created["token"].startswith("iotp_")
    assert created["token"].startswith(created["prefix"])
    assert (created["scopes"], created["expires_at"]) == (["read", "write"], None)
    assert (await me(client, created["token"])).json()["id"] == account.id
    answer = await client.get(f"{API}/auth/tokens", headers=account.headers)
    assert created["token"] not in answer.text
    (listed,) = answer.json()["items"]
    assert listed["id"] == created["id"]
    assert listed["last_used_at"] is not None
    made = await client.post(
        f"{API}/devices/register", json={"name": "x"}, headers=bearer(created["token"])
    )
    assert made.status_code == 201


async def test_a_reading_token_reads_and_is_told_why_it_writes_nothing(
    client: httpx.AsyncClient, new_account: NewAccount
) -> None:
    token = (await create_token(client, await new_account(), ["read"]))["token"]
    assert (await client.get(f"{API}/devices", headers=bearer(token))).status_code == 200
    calls = [("POST", "/devices/register"), ("POST", "/auth/tokens"), ("POST", "/auth/password")]
    for method, path in calls:
        answer = await client.request(method, API + path, headers=bearer(token), json={})
        # Who may not write is told so, whatever else is wrong with the request.
        assert answer.status_code in (403, 422)
    answer = await client.post(f"{API}/devices/register", json={"name": "x"}, headers=bearer(token))
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


async def test_a_deleted_token_opens_nothing_and_others_tokens_are_not_found(
    client: httpx.AsyncClient, new_account: NewAccount
) -> None:
    account, other = await new_account(), await new_account()
    created = await create_token(client, account, ["read"])
    assert (await me(client, created["token"])).status_code == 200
    path = f"{API}/auth/tokens/{created['id']}"
    assert (await client.delete(path, headers=other.headers)).status_code == 404
    assert (await me(client, created["token"])).status_code == 200
    assert (await client.delete(path, headers=account.headers)).status_code == 204
    answer = await me(client, created["token"])
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
    assert (await client.delete(path, headers=account.headers)).status_code == 404


async def test_what_is_deleted_on_one_replica_ends_on_the_other_within_a_second(
    data_dir: Path,
) -> None:
    settings = Settings.load(data_dir=data_dir, rate_limits=NO_LIMITS)
    async with serving(settings) as here, serving(settings) as there:
        account = await create_account(here)
        created = await create_token(here, account, ["read"])
        assert (await me(there, created["token"])).status_code == 200
        path = f"{API}/auth/tokens/{created['id']}"
        assert (await here.delete(path, headers=account.headers)).status_code == 204
        await asyncio.sleep(A_SECOND)
        assert (await me(there, created["token"])).status_code == 401


async def test_an_expired_token_opens_nothing_and_none_outlives_the_token_that_made_it(
    client: httpx.AsyncClient, new_account: NewAccount
) -> None:
    account = await new_account()
    brief = await create_token(client, account, ["read", "write"], expires_in=2)
    body = {"name": "child", "scopes": ["read"], "expires_in": 3600}
    child = await client.post(f"{API}/auth/tokens", json=body, headers=bearer(brief["token"]))
    assert child.json()["expires_at"] == brief["expires_at"]
    assert (await me(client, brief["token"])).status_code == 200
    left_s = datetime.fromisoformat(brief["expires_at"]).timestamp() - _now()
    await asyncio.sleep(max(0.0, left_s) + 0.01)
    assert (await me(client, brief["token"])).status_code == 401
    assert (await me(client, child.json()["token"])).status_code == 401


def _now() -> float:
    import time

    return time.time()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["write"]}, "scopes"),
        ({"scopes": ["read", "read"]}, "scopes"),
        ({"scopes": ["read", "admin"]}, "scopes.1"),
        ({"scopes": "read"}, "scopes"),
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"expires_in": 0}, "expires_in"),
        ({"expires_in": 10**12}, "expires_in"),
        ({"role": "admin"}, "role"),
    ],
)
async def test_tokens_that_are_refused_name_the_field(
    client: httpx.AsyncClient, owner: Account, change: dict[str, Any], field: str
) -> None:
    body = {"name": "x", "scopes": ["read"]} | change
    answer = await client.post(f"{API}/auth/tokens", json=body, headers=owner.headers)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_lists_of_tokens_are_paged(
    client: httpx.AsyncClient, new_account: NewAccount
) -> None:
    account = await new_account()
    made = [(await create_token(client, account, ["read"]))["id"] for _ in range(5)]
    seen: list[int] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = await client.get(f"{API}/auth/tokens", params=query, headers=account.headers)
        seen += [item["id"] for item in page.json()["items"]]
        if page.json()["next_cursor"] is None:
            break
        query["cursor"] = page.json()["next_cursor"]
    assert seen == made


async def test_a_user_has_no_more_tokens_than_the_quota_also_when_asking_at_once(
    data_dir: Path,
) -> None:
    settings = Settings.load(
        data_dir=data_dir, rate_limits=NO_LIMITS, quotas=QuotaSettings(tokens=3)
    )
    async with serving(settings) as client:
        account = await create_account(client)
        body = {"name": "x", "scopes": ["read"]}
        answers = await asyncio.gather(
            *(
                client.post(f"{API}/auth/tokens", json=body, headers=account.headers)
                for _ in range(8)
            )
        )
        assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 5
        assert {a.json()["code"] for a in answers if a.status_code == 409} == {"too_many_tokens"}


async def test_no_token_is_kept_or_logged_as_it_is(data_dir: Path) -> None:
    settings = Settings.load(data_dir=data_dir, rate_limits=NO_LIMITS)
    async with serving(settings) as client:
        token = (await create_token(client, await create_account(client), ["read"]))["token"]
    with closing(sqlite3.connect(data_dir / "registry.db")) as registry:
        assert token.encode() not in "\n".join(registry.iterdump()).encode()
    assert await asyncio.to_thread(files_with, data_dir, token.encode()) == []


def files_with(directory: Path, text: bytes) -> list[str]:
    return [file.name for file in directory.iterdir() if text in file.read_bytes()]


async def test_a_new_password_ends_other_sessions_and_all_tokens_but_not_this_session(
    client: httpx.AsyncClient, new_account: NewAccount
) -> None:
    account = await new_account()
    login = {"username": account.username, "password": PASSWORD}
    other = (await client.post(f"{API}/auth/login", json=login)).json()
    token = (await create_token(client, account, ["read", "write"]))["token"]
    body = {"current_password": PASSWORD, "new_password": NEW}
    answer = await client.post(f"{API}/auth/password", json=body, headers=account.headers)
    assert answer.status_code == 204
    await asyncio.sleep(A_SECOND)
    ended = await me(client, other["access_token"])
    assert (ended.status_code, ended.json()["code"]) == (401, "session_ended")
    assert (await me(client, token)).status_code == 401
    refresh = {"refresh_token": other["refresh_token"]}
    assert (await client.post(f"{API}/auth/refresh", json=refresh)).status_code == 401
    assert (await me(client, account.access_token)).status_code == 200
    refresh = {"refresh_token": account.refresh_token}
    again = await client.post(f"{API}/auth/refresh", json=refresh)
    assert (await me(client, again.json()["access_token"])).status_code == 200
    assert (await client.post(f"{API}/auth/login", json=login)).status_code == 401
    login["password"] = NEW
    assert (await client.post(f"{API}/auth/login", json=login)).status_code == 200


async def test_a_new_password_holds_on_another_replica_within_a_second(data_dir: Path) -> None:
    settings = Settings.load(data_dir=data_dir, rate_limits=NO_LIMITS)
    async with serving(settings) as here, serving(settings) as there:
        account = await create_account(here)
        login = {"username": account.username, "password": PASSWORD}
        other = (await here.post(f"{API}/auth/login", json=login)).json()["access_token"]
        assert (await me(there, other)).status_code == 200
        body = {"current_password": PASSWORD, "new_password": NEW}
        changed = await here.post(f"{API}/auth/password", json=body, headers=account.headers)
        assert changed.status_code == 204
        await asyncio.sleep(A_SECOND)
        assert (await me(there, other)).status_code == 401
        assert (await me(there, account.access_token)).status_code == 200


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"current_password": "not it at all"}, 403, "wrong_password"),
        ({"new_password": "short"}, 422, "validation_failed"),
        ({"extra": 1}, 422, "validation_failed"),
    ],
)
async def test_passwords_that_are_not_changed(
    client: httpx.AsyncClient,
    new_account: NewAccount,
    change: dict[str, Any],
    status: int,
    code: str,
) -> None:
    account = await new_account()
    body = {"current_password": PASSWORD, "new_password": NEW} | change
    answer = await client.post(f"{API}/auth/password", json=body, headers=account.headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (await me(client, account.access_token)).status_code == 200


async def test_a_login_with_the_old_password_does_not_survive_the_new_one(
    client: httpx.AsyncClient, new_account: NewAccount
) -> None:
    account = await new_account()
    login = {"username": account.username, "password": PASSWORD}
    body = {"current_password": PASSWORD, "new_password": NEW}
    change = client.post(f"{API}/auth/password", json=body, headers=account.headers)
    logins = [client.post(f"{API}/auth/login", json=login) for _ in range(6)]
    changed, *answers = await asyncio.gather(change, *logins)
    assert changed.status_code == 204
    await asyncio.sleep(A_SECOND)
    for answer in answers:
        if answer.status_code == 200:
            session = answer.json()
            assert (await me(client, session["access_token"])).status_code == 401
            refresh = {"refresh_token": session["refresh_token"]}
            assert (await client.post(f"{API}/auth/refresh", json=refresh)).status_code == 401


OLD, FRESH, FOREIGN = "o" * 64, "f" * 64, "x" * 64


def keyed(data_dir: Path, secret: str, *previous: str) -> Settings:
    return Settings.load(
        data_dir=data_dir,
        rate_limits=NO_LIMITS,
        secret_key=secret,
        previous_secret_keys=" ".join(previous),
    )


async def test_a_signing_secret_can_be_changed_without_signing_anyone_out(data_dir: Path) -> None:
    async with serving(keyed(data_dir, OLD)) as client:
        old = (await create_account(client)).access_token
    async with serving(keyed(data_dir, FRESH, FOREIGN, OLD)) as client:
        assert (await me(client, old)).status_code == 200
        new = (await create_account(client)).access_token
    async with serving(keyed(data_dir, FRESH)) as client:
        assert (await me(client, old)).status_code == 401
        assert (await me(client, new)).status_code == 200


async def test_only_tokens_of_our_algorithm_and_secret_count(data_dir: Path) -> None:
    async with serving(keyed(data_dir, FRESH, OLD)) as client:
        account = await create_account(client)
        claims = jwt.decode(account.access_token, options={"verify_signature": False})
        for secret in (FRESH, OLD):
            assert (await me(client, jwt.encode(claims, secret, "HS256"))).status_code == 200
        refused = [
            jwt.encode(claims, FOREIGN, "HS256"),
            jwt.encode(claims, FRESH, "HS384"),
            jwt.encode(claims, None, "none"),
            jwt.encode(claims | {"exp": int(_now()) - 1}, FRESH, "HS256"),
            jwt.encode(claims | {"iss": "someone"}, FRESH, "HS256"),
            jwt.encode(claims | {"sub": "1 or 2"}, FRESH, "HS256"),
            jwt.encode(claims | {"ver": "x"}, FRESH, "HS256"),
            jwt.encode({k: v for k, v in claims.items() if k != "ver"}, FRESH, "HS256"),
            jwt.encode({k: v for k, v in claims.items() if k != "exp"}, FRESH, "HS256"),
            account.access_token[:-6],
        ]
        for token in refused:
            assert (await me(client, token)).status_code == 401


async def test_a_device_key_is_no_bearer_token(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    assert (await me(client, device.api_key)).status_code == 401
    for token in ("iotp_", "iotp_" + "a" * 43, "iotp_" + "a" * 400):
        assert (await me(client, token)).status_code == 401


def test_a_previous_secret_that_is_too_short_stops_the_start_and_is_not_shown(
    data_dir: Path,
) -> None:
    settings = keyed(data_dir, FRESH, OLD, "shortsecret")
    with pytest.raises(ConfigurationError, match="IOTFLOW_PREVIOUS_SECRET_KEYS") as refused:
        settings.token_secrets()
    assert "shortsecret" not in refused.value.message


def test_previous_secrets_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOTFLOW_SECRET_KEY", FRESH)
    monkeypatch.setenv("IOTFLOW_PREVIOUS_SECRET_KEYS", f"{OLD}, {FOREIGN}")
    assert Settings.load().token_secrets() == [FRESH, OLD, FOREIGN]
