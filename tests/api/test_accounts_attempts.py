"""Failed sign-ins: guessing is slow, and nobody locks somebody else out."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from asgi_lifespan import LifespanManager

from iotflow.accounts.attempts import network_of
from iotflow.app import create_app
from iotflow.domain.limits import RatePolicy
from iotflow.settings import RateLimitSettings, Settings
from tests.api.conftest import PASSWORD, Account, create_account

API = "/api/v1"
FAILURES = 3
HOME, ELSEWHERE, GUESSER = "192.0.2.1", "192.0.2.2", "198.51.100.7"


class From:
    """The same service, seen from any address."""

    def __init__(self, app: object) -> None:
        self._app = app

    def client(self, address: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self._app, client=(address, 1))  # type: ignore[arg-type]
        return httpx.AsyncClient(transport=transport, base_url="http://service")

    async def attempt(self, address: str, username: str, password: str) -> int:
        async with self.client(address) as client:
            login = {"username": username, "password": password}
            return (await client.post(f"{API}/auth/login", json=login)).status_code

    async def fail(self, address: str, username: str, times: int) -> list[int]:
        return [await self.attempt(address, username, "not the password") for _ in range(times)]


@pytest.fixture
async def service(data_dir: Path) -> AsyncIterator[From]:
    limits = RateLimitSettings(login_failures=RatePolicy(FAILURES, 300))
    settings = Settings.load(data_dir=data_dir, rate_limits=limits)
    async with LifespanManager(create_app(settings), startup_timeout=30) as manager:
        yield From(manager.app)


@pytest.fixture
async def account(service: From) -> Account:
    async with service.client(HOME) as client:
        return await create_account(client)


async def test_a_guesser_waits_and_the_owner_signs_in_from_elsewhere(
    service: From, account: Account
) -> None:
    assert await service.fail(GUESSER, account.username, 5) == [401, 401, 401, 429, 429]
    assert await service.attempt(GUESSER, account.username, PASSWORD) == 429
    assert await service.attempt(HOME, account.username, PASSWORD) == 200
    assert await service.attempt(ELSEWHERE, account.email, PASSWORD) == 200


async def test_many_addresses_give_a_guesser_one_guess_each(
    service: From, account: Account
) -> None:
    for number in range(FAILURES):
        assert await service.fail(f"203.0.113.{number}", account.username, 1) == [401]
    for number in range(10, 14):
        assert await service.fail(f"203.0.113.{number}", account.username, 3) == [401, 429, 429]
    assert await service.attempt(HOME, account.username, PASSWORD) == 200


async def test_name_and_address_are_one_account(service: From, account: Account) -> None:
    await service.fail(GUESSER, account.username, 2)
    assert await service.fail(GUESSER, account.email.upper(), 2) == [401, 429]


async def test_an_account_that_does_not_exist_is_limited_just_so(service: From) -> None:
    assert await service.fail(GUESSER, "nobody-at-all", 4) == [401, 401, 401, 429]
    assert await service.fail(GUESSER, "Nobody-At-All", 1) == [429]


async def test_guessing_the_current_password_is_slow_too(service: From, account: Account) -> None:
    body = {"current_password": "not the password", "new_password": "another good one"}
    async with service.client(GUESSER) as client:
        statuses = [
            (
                await client.post(f"{API}/auth/password", json=body, headers=account.headers)
            ).status_code
            for _ in range(4)
        ]
    assert statuses == [403, 403, 403, 429]


def test_a_network_is_an_ipv4_address_or_an_ipv6_block() -> None:
    assert network_of("2001:db8:1:2::1") == network_of("2001:db8:1:2:ffff::9")
    assert network_of("2001:db8:1:2::1") != network_of("2001:db8:1:3::1")
    assert network_of("192.0.2.1") != network_of("192.0.2.2")
    assert network_of("::ffff:192.0.2.1") != network_of("::ffff:192.0.2.2")
    assert network_of("unknown") == "unknown"
