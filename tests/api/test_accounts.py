import asyncio
import time
from statistics import median

import httpx
import jwt
import pytest

from tests.api.conftest import PASSWORD, NewAccount

API = "/api/v1"


async def test_registering_gives_the_user_without_the_password(client: httpx.AsyncClient) -> None:
    body = {"username": "Ada.L", "email": "ada.l@example.com", "password": PASSWORD}
    answer = await client.post(f"{API}/auth/register", json=body)
    assert answer.status_code == 201
    user = answer.json()
    assert user.keys() == {
        "id", "username", "email", "role", "is_active", "created_at", "updated_at", "last_login_at",
    }  # fmt: skip
    assert (user["username"], user["role"], user["is_active"]) == ("Ada.L", "user", True)
    assert user["created_at"].endswith("Z")
    assert user["last_login_at"] is None
    assert PASSWORD not in answer.text


@pytest.mark.parametrize(
    ("change", "code"),
    [({"username": "TAKEN"}, "username_taken"), ({"email": "Taken@Example.com"}, "email_taken")],
)
async def test_names_and_addresses_are_taken_whatever_their_case(
    client: httpx.AsyncClient, change: dict[str, str], code: str
) -> None:
    first = {"username": "taken", "email": "taken@example.com", "password": PASSWORD}
    await client.post(f"{API}/auth/register", json=first)
    fresh = {"username": "fresh-one", "email": "fresh@example.com", "password": PASSWORD}
    answer = await client.post(f"{API}/auth/register", json=fresh | change)
    assert answer.status_code == 409
    assert answer.json()["code"] == code


async def test_signing_in_by_name_or_address(
    client: httpx.AsyncClient, new_account: NewAccount
) -> None:
    account = await new_account()
    for login in (account.username, account.username.upper(), account.email):
        answer = await client.post(
            f"{API}/auth/login", json={"username": login, "password": PASSWORD}
        )
        assert answer.status_code == 200
        session = answer.json()
        assert session["token_type"] == "bearer"
        assert session["expires_in"] == 900
        assert session["user"]["last_login_at"] is not None
        me = await client.get(
            f"{API}/users/me", headers={"Authorization": f"Bearer {session['access_token']}"}
        )
        assert me.json()["id"] == account.id


async def test_wrong_password_and_unknown_user_get_one_answer_in_one_time(
    client: httpx.AsyncClient, new_account: NewAccount
) -> None:
    account = await new_account()

    async def attempt(username: str) -> tuple[float, httpx.Response]:
        began = time.perf_counter()
        body = {"username": username, "password": "wrong password"}
        answer = await client.post(f"{API}/auth/login", json=body)
        return time.perf_counter() - began, answer

    known = [await attempt(account.username) for _ in range(9)]
    unknown = [await attempt("nobody-at-all") for _ in range(9)]
    for _, answer in known + unknown:
        assert answer.status_code == 401
        assert answer.json()["code"] == "invalid_credentials"
        assert "www-authenticate" in answer.headers
    ratio = median(took for took, _ in known) / median(took for took, _ in unknown)
    assert 0.5 < ratio < 2, "the time tells which names exist"


async def test_a_refresh_token_works_once_and_its_reuse_ends_the_session(
    client: httpx.AsyncClient, new_account: NewAccount
) -> None:
    account = await new_account()

    async def refresh(token: str) -> httpx.Response:
        return await client.post(f"{API}/auth/refresh", json={"refresh_token": token})

    second = await refresh(account.refresh_token)
    assert second.status_code == 200
    assert second.json()["refresh_token"] != account.refresh_token
    reused = await refresh(account.refresh_token)
    assert (reused.status_code, reused.json()["code"]) == (401, "invalid_refresh_token")
    assert (await refresh(second.json()["refresh_token"])).status_code == 401


async def test_of_concurrent_refreshes_with_one_token_at_most_one_succeeds(
    client: httpx.AsyncClient, new_account: NewAccount
) -> None:
    account = await new_account()
    body = {"refresh_token": account.refresh_token}
    answers = await asyncio.gather(
        *(client.post(f"{API}/auth/refresh", json=body) for _ in range(8))
    )
    assert [answer.status_code for answer in answers].count(200) == 1


async def test_signing_out_ends_the_session(
    client: httpx.AsyncClient, new_account: NewAccount
) -> None:
    account = await new_account()
    body = {"refresh_token": account.refresh_token}
    assert (await client.post(f"{API}/auth/logout", json=body)).status_code == 204
    assert (await client.post(f"{API}/auth/refresh", json=body)).status_code == 401
    assert (await client.post(f"{API}/auth/logout", json=body)).status_code == 204


async def test_tokens_that_prove_nothing_are_refused(
    client: httpx.AsyncClient, new_account: NewAccount
) -> None:
    account = await new_account()
    claims = jwt.decode(account.access_token, options={"verify_signature": False})
    head, payload, signature = account.access_token.split(".")
    forged = [
        jwt.encode(claims, "another secret that is long enough", algorithm="HS256"),
        jwt.encode(claims, "", algorithm="none"),
        f"{head}.{payload}.",
        f"{head}.{payload}.{signature[:-4]}",
        f"{head}.{payload}",
        account.refresh_token,
        "x" * 5000,
        "ü",
    ]
    for token in forged:
        header = {"Authorization": f"Bearer {token}".encode()}
        answer = await client.get(f"{API}/users/me", headers=header)
        assert answer.status_code == 401, token[:20]
        assert answer.json()["code"] == "not_authenticated"
        assert token not in answer.text


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"username": "a"}, "username"),
        ({"username": "a b c"}, "username"),
        ({"username": "nul\x00nul"}, "username"),
        ({"username": 12345}, "username"),
        ({"email": "not an address"}, "email"),
        ({"email": None}, "email"),
        ({"password": "short"}, "password"),
        ({"password": "x" * 300}, "password"),
        ({"role": "admin"}, "role"),
    ],
)
async def test_registrations_that_are_refused_name_the_field(
    client: httpx.AsyncClient, change: dict[str, object], field: str
) -> None:
    body = {"username": "someone", "email": "some@example.com", "password": PASSWORD} | change
    answer = await client.post(f"{API}/auth/register", json=body)
    assert answer.status_code == 422
    problem = answer.json()
    assert [error["field"] for error in problem["errors"]] == [field]
    assert PASSWORD not in answer.text
