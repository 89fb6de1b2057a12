"""A running service without a socket, and the people and devices that use it."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from asgi_lifespan import LifespanManager

from iotflow.app import create_app
from iotflow.runtime import Runtime
from iotflow.settings import RateLimitSettings, Settings

PASSWORD = "correct horse battery"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Account:
    id: int
    username: str
    email: str
    access_token: str
    refresh_token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"}


@dataclass(frozen=True)
class DeviceUnderTest:
    id: int
    api_key: str
    owner: Account

    @property
    def headers(self) -> dict[str, str]:
        return {"X-API-Key": self.api_key}


@pytest.fixture(scope="session")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """The service with its limits switched off."""
    settings = Settings.load(
        data_dir=tmp_path_factory.mktemp("data"), rate_limits=RateLimitSettings(enabled=False)
    )
    async with serving(settings) as client:
        yield client


class serving:  # noqa: N801
    """A client of a service with these settings, in a context."""

    def __init__(
        self, settings: Settings, on_ready: Callable[[Runtime], None] = lambda _: None
    ) -> None:
        self._manager = LifespanManager(create_app(settings, on_ready), startup_timeout=30)

    async def __aenter__(self) -> httpx.AsyncClient:
        manager = await self._manager.__aenter__()
        transport = httpx.ASGITransport(manager.app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://service")
        return self._client

    async def __aexit__(self, *error: object) -> None:
        await self._client.aclose()
        await self._manager.__aexit__(*error)  # type: ignore[arg-type]


NewAccount = Callable[[], Awaitable[Account]]
NewDevice = Callable[..., Awaitable[DeviceUnderTest]]


async def create_account(client: httpx.AsyncClient) -> Account:
    username = f"user-{next(_numbers)}"
    email = f"{username}@example.com"
    body = {"username": username, "email": email, "password": PASSWORD}
    registered = await client.post("/api/v1/auth/register", json=body)
    assert registered.status_code == 201, registered.text
    login = {"username": username, "password": PASSWORD}
    session = (await client.post("/api/v1/auth/login", json=login)).json()
    return Account(
        registered.json()["id"], username, email, session["access_token"], session["refresh_token"]
    )


async def create_device(
    client: httpx.AsyncClient, owner: Account, **fields: Any
) -> DeviceUnderTest:
    body = {"name": f"device-{next(_numbers)}"} | fields
    answer = await client.post("/api/v1/devices/register", json=body, headers=owner.headers)
    assert answer.status_code == 201, answer.text
    registered = answer.json()
    return DeviceUnderTest(registered["device"]["id"], registered["api_key"], owner)


@pytest.fixture(scope="session")
async def owner(client: httpx.AsyncClient) -> Account:
    return await create_account(client)


@pytest.fixture
async def new_account(client: httpx.AsyncClient) -> NewAccount:
    return lambda: create_account(client)


@pytest.fixture
async def new_device(client: httpx.AsyncClient, owner: Account) -> NewDevice:
    async def create(of: Account = owner, **fields: Any) -> DeviceUnderTest:
        return await create_device(client, of, **fields)

    return create


@pytest.fixture
async def device(new_device: NewDevice) -> DeviceUnderTest:
    return await new_device()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"
