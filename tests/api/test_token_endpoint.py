"""Signing in by a form, as OAuth 2 clients do: other words, the same rules as with JSON."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pytest
from asgi_lifespan import LifespanManager

from iotflow.accounts.grants import MAX_FORM_BYTES
from iotflow.app import create_app
from iotflow.cli.operate import create_admin
from iotflow.domain.limits import RatePolicy
from iotflow.settings import CorsSettings, RateLimitSettings, Settings
from tests.api.conftest import PASSWORD, Account, NewAccount, create_account

API = "/api/v1"
TOKEN = f"{API}/auth/token"
PAGE = "https://dashboard.example"
HOME, ELSEWHERE = "192.0.2.1", "192.0.2.2"
FAILURES, SIGN_INS = 3, 6
LONGEST_S = 10


def password_grant(username: str, password: str = PASSWORD, **more: str) -> dict[str, str]:
    return {"grant_type": "password", "username": username, "password": password} | more


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Status and error of what is a problem and in the words of the RFC alike."""
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["error"] == problem["code"]
    assert problem["error_description"] == problem["detail"]
    assert problem["status"] == answer.status_code
    return answer.status_code, problem["error"]


async def test_a_name_and_a_password_give_a_token_that_works(
    client: httpx.AsyncClient, new_account: NewAccount
) -> None:
    account = await new_account()
    for name in (account.username, account.email):
        answer = await client.post(TOKEN, data=password_grant(name))
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        token = answer.json()
        assert (token["token_type"], token["expires_in"]) == ("bearer", 900)
        assert token["refresh_token"]
        bearer = {"Authorization": f"Bearer {token['access_token']}"}
        assert (await client.get(f"{API}/users/me", headers=bearer)).json()["id"] == account.id


async def test_what_clients_send_besides_is_ignored(
    client: httpx.AsyncClient, new_account: NewAccount
) -> None:
    account = await new_account()
    form = password_grant(account.username, scope="", client_id="explorer", client_secret="")
    answer = await client.post(TOKEN, data=form, auth=("undefined", "undefined"))
    assert answer.status_code == 200


async def test_a_session_goes_on_and_a_token_works_once(
    client: httpx.AsyncClient, new_account: NewAccount
) -> None:
    account = await new_account()
    form = {"grant_type": "refresh_token", "refresh_token": account.refresh_token}
    second = await client.post(TOKEN, data=form)
    assert second.status_code == 200
    assert second.json()["refresh_token"] != account.refresh_token
    assert refusal(await client.post(TOKEN, data=form)) == (400, "invalid_grant")
    body = {"refresh_token": second.json()["refresh_token"]}
    assert (await client.post(f"{API}/auth/refresh", json=body)).status_code == 401


async def test_wrong_password_and_unknown_user_get_one_answer_in_one_time(
    client: httpx.AsyncClient, new_account: NewAccount
) -> None:
    account = await new_account()

    async def attempt(username: str) -> tuple[float, dict[str, Any]]:
        began = time.perf_counter()
        answer = await client.post(TOKEN, data=password_grant(username, "wrong password"))
        took = time.perf_counter() - began
        assert refusal(answer) == (400, "invalid_grant")
        return took, answer.json() | {"request_id": ""}

    known, unknown = [], []
    for _ in range(9):  # in turn, so that a machine that slows down slows both
        known.append(await attempt(account.username))
        unknown.append(await attempt("nobody-at-all"))
    assert len({str(problem) for _, problem in known + unknown}) == 1
    ratio = median(took for took, _ in known) / median(took for took, _ in unknown)
    assert 0.5 < ratio < 2, "the time tells which names exist"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("", "invalid_request"),
        ("grant_type=", "invalid_request"),
        ("username=ada&password=secret-word", "invalid_request"),
        ("grant_type=password&username=ada", "invalid_request"),
        ("grant_type=password&username=&password=secret-word", "invalid_request"),
        ("grant_type=password&username=ada&username=eve&password=secret-word", "invalid_request"),
        ("grant_type=password&username=a%00a&password=secret-word", "invalid_request"),
        ("grant_type=password&username=ada&password=" + "x" * 600, "invalid_request"),
        ("grant_type=password&username=%ff&password=secret-word", "invalid_request"),
        ("grant_type=password&username=\udcff&password=secret-word", "invalid_request"),
        ("&".join(f"f{number}=1" for number in range(100)), "invalid_request"),
        ("grant_type=refresh_token", "invalid_request"),
        ("grant_type=refresh_token&refresh_token=secret-word", "invalid_grant"),
        ("grant_type=client_credentials", "unsupported_grant_type"),
        ("grant_type=PASSWORD&username=ada&password=secret-word", "unsupported_grant_type"),
        ("grant_type=password&username=ada&password=secret-word&scope=read", "invalid_scope"),
    ],
)
async def test_what_cannot_be_granted_is_named_as_the_rfc_has_it(
    client: httpx.AsyncClient, body: str, error: str
) -> None:
    content = body.encode("utf-8", "surrogateescape")
    form = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    answer = await client.post(TOKEN, content=content, headers=form)
    assert refusal(answer) == (400, error)
    assert "secret-word" not in answer.text


async def test_fields_at_fault_are_named(client: httpx.AsyncClient) -> None:
    answer = await client.post(TOKEN, data={"grant_type": "password", "username": "ada"})
    assert [each["field"] for each in answer.json()["errors"]] == ["password"]


async def test_only_a_form_of_a_form_s_size_is_read(client: httpx.AsyncClient) -> None:
    as_json = await client.post(TOKEN, json=password_grant("ada"))
    assert refusal(as_json) == (415, "unsupported_media_type")
    large = await client.post(TOKEN, data=password_grant("ada", more="x" * MAX_FORM_BYTES))
    assert refusal(large) == (413, "body_too_large")


class Places:
    """The same service, seen from any address."""

    def __init__(self, app: object) -> None:
        self._app = app

    def client(self, address: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self._app, client=(address, 1))  # type: ignore[arg-type]
        return httpx.AsyncClient(transport=transport, base_url="http://service")

    async def token(self, address: str, username: str, password: str) -> httpx.Response:
        async with self.client(address) as client:
            return await client.post(TOKEN, data=password_grant(username, password))

    async def login(self, address: str, username: str, password: str) -> httpx.Response:
        async with self.client(address) as client:
            body = {"username": username, "password": password}
            return await client.post(f"{API}/auth/login", json=body)


@pytest.fixture
async def places(data_dir: Path) -> AsyncIterator[Places]:
    limits = RateLimitSettings(
        login_failures=RatePolicy(FAILURES, 300), login=RatePolicy(SIGN_INS, 300)
    )
    cors = CorsSettings(origins=(PAGE,))
    settings = Settings.load(data_dir=data_dir, rate_limits=limits, cors=cors)
    await asyncio.to_thread(create_admin, "root", "root@example.com", PASSWORD, data_dir)
    async with LifespanManager(create_app(settings), startup_timeout=30) as manager:
        yield Places(manager.app)


@pytest.fixture
async def ada(places: Places) -> Account:
    async with places.client("192.0.2.200") as client:
        return await create_account(client)


@pytest.mark.parametrize("mixed", [False, True])
async def test_failures_are_counted_for_both_ways_together(
    places: Places, ada: Account, mixed: bool
) -> None:
    failing = places.login if mixed else places.token
    for _ in range(FAILURES):
        await failing(HOME, ada.username, "not the password")
    refused = await places.token(HOME, ada.username, PASSWORD)
    assert refusal(refused) == (429, "rate_limited")
    assert int(refused.headers["retry-after"]) > 0
    assert (await places.login(HOME, ada.username, PASSWORD)).status_code == 429
    assert (await places.token(ELSEWHERE, ada.username, PASSWORD)).status_code == 200


async def test_attempts_are_counted_for_each_address(places: Places, ada: Account) -> None:
    statuses = [(await places.token(HOME, ada.username, PASSWORD)).status_code for _ in range(4)]
    statuses += [(await places.login(HOME, ada.username, PASSWORD)).status_code for _ in range(2)]
    assert statuses == [200] * SIGN_INS
    assert refusal(await places.token(HOME, ada.username, PASSWORD)) == (429, "rate_limited")


async def test_an_account_that_is_switched_off_gets_none(places: Places, ada: Account) -> None:
    root = (await places.token("192.0.2.201", "root", PASSWORD)).json()["access_token"]
    async with places.client(HOME) as client:
        bearer = {"Authorization": f"Bearer {root}"}
        await client.patch(f"{API}/users/{ada.id}/deactivate", headers=bearer)
    assert refusal(await places.token(HOME, ada.username, PASSWORD)) == (400, "invalid_grant")


async def test_what_happened_is_in_the_event_log(places: Places, ada: Account) -> None:
    await places.token(HOME, ada.username, "not the password")
    await places.token(HOME, ada.username, PASSWORD)
    wanted = {("user.login_failed", HOME), ("user.logged_in", HOME)}
    async with places.client(HOME) as client, asyncio.timeout(LONGEST_S):
        while True:
            found = (await client.get(f"{API}/events", headers=ada.headers)).json()["items"]
            if wanted <= {(each["event_type"], each["details"].get("address")) for each in found}:
                return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("headers", "may"),
    [
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://service"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site", "Origin": PAGE}, True),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "https://other.example"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "null"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
    ],
)
async def test_a_strange_page_cannot_have_its_visitors_fail(
    places: Places, ada: Account, headers: dict[str, str], may: bool
) -> None:
    async with places.client(HOME) as client:
        wrong = password_grant(ada.username, "not the password")
        for _ in range(FAILURES):
            answer = await client.post(TOKEN, data=wrong, headers=headers)
            assert refusal(answer) == ((400, "invalid_grant") if may else (403, "not_allowed"))
    login = await places.login(HOME, ada.username, PASSWORD)
    assert login.status_code == (429 if may else 200)
