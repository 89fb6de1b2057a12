"""Another's things cost what nothing costs: the stores are asked the same questions for both.

A clock would tell this only on average; the questions are counted instead.
"""

import asyncio
import contextvars
import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import pytest

from iotflow.cli.operate import create_admin
from iotflow.devices.service import Devices
from iotflow.domain.callers import Caller, UserCaller
from iotflow.domain.devices import Device
from iotflow.settings import RateLimitSettings, Settings
from iotflow.stores.cache.memory import MemoryCache
from iotflow.stores.events.sql import SqlEventStore
from iotflow.stores.registry.sql import SqlRegistry
from iotflow.stores.telemetry.sqlite import SqliteTelemetryStore
from tests.api.conftest import PASSWORD, Account, create_account, create_device, serving
from tests.api.test_authorisation import API, EXPECTED, HIDDEN, MINUTES, World, bearer

MISSING = 2**50
STORES = (SqlRegistry, SqliteTelemetryStore, MemoryCache, SqlEventStore)
# Who the caller is, which is asked once a second or so whatever they ask for.
IDENTITY = (
    "SqlRegistry.user",
    "SqlRegistry.personal_token",
    "SqlRegistry.key_record",
    "SqlRegistry.key_records",
    "MemoryCache.key",
    "MemoryCache.fill_key",
)

_asked: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("asked", default=None)


@pytest.fixture(scope="module", autouse=True)
def _recording() -> Iterator[None]:
    """Every call of a store is noted, if it is made for the request at hand."""
    with pytest.MonkeyPatch.context() as patch:
        for store in STORES:
            for name, method in inspect.getmembers(store, inspect.iscoroutinefunction):
                if not name.startswith("_"):
                    patch.setattr(store, name, _noting(f"{store.__name__}.{name}", method))
        yield


def _noting(name: str, method: Any) -> Any:
    @functools.wraps(method)
    async def noted(*arguments: Any, **options: Any) -> Any:
        calls = _asked.get()
        if calls is not None and name not in IDENTITY:
            calls.append(name)
        return await method(*arguments, **options)

    return noted


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, _recording: None) -> AsyncIterator[World]:
    data_dir = tmp_path_factory.mktemp("strangers")
    settings = Settings.load(data_dir=data_dir, rate_limits=RateLimitSettings(enabled=False))
    await asyncio.to_thread(create_admin, "root", "root@example.com", PASSWORD, data_dir)
    async with serving(settings) as client:
        login = {"username": "root", "password": PASSWORD}
        session = (await client.post(f"{API}/auth/login", json=login)).json()
        admin = Account(session["user"]["id"], "root", "", session["access_token"], "")
        world = await World(client).build(admin)
        stranger = await create_account(client)
        own = await create_device(client, stranger)
        group = await world.post("/groups", stranger, {"name": "own"})
        world.headers["stranger"] = bearer(stranger.access_token)
        world.headers["strange_device"] = own.headers
        world.names |= {"own_device": own.id, "own_group": group["id"]}
        yield world


class Question(NamedTuple):
    """A call with an id in it, `{}`, that is another's or nobody's."""

    method: str
    path: str
    query: dict[str, Any]
    body: Any
    name: str
    caller: str = "stranger"


def filled(value: Any, names: dict[str, Any], name: str, found: Any) -> Any:
    """What is asked, with the names of things replaced by their ids."""
    if isinstance(value, dict):
        return {key: filled(each, names, name, found) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, names, name, found) for each in value]
    if value == name:
        return found
    return names.get(value, value) if isinstance(value, str) else value


async def asked_of_stores(world: World, question: Question, found: int) -> list[str]:
    path = question.path
    for name in {question.name, *world.names}:
        value = found if name == question.name else world.names[name]
        path = path.replace(f"{{{name}}}", str(value))
    calls: list[str] = []
    _asked.set(calls)
    try:
        answer = await world.client.request(
            question.method,
            path,
            params=filled(question.query, world.names, question.name, found),
            json=filled(question.body, world.names, question.name, found),
            headers=world.headers[question.caller],
        )
    finally:
        _asked.set(None)
    assert answer.status_code in (200, 207, 404), (question, answer.text)
    return calls


def from_the_matrix(world: World) -> Iterator[Question]:
    """Every operation that hides what is another's, for users and for devices."""
    for operation, call in EXPECTED.items():
        method, path = world.operations[operation]
        for column, caller in (("other_user", "stranger"), ("other_device", "strange_device")):
            if call.expected[column] != HIDDEN:
                continue
            way = path
            for parameter, name in call.path.items():
                way = way.replace(f"{{{parameter}}}", f"{{{name}}}")
            for name in {*call.path.values(), *call.query.values()} & world.names.keys():
                yield Question(method, way, dict(call.query), call.body, name, caller)


def beside_the_matrix() -> list[Question]:
    """Ids of others beside one's own, and in queries and bodies."""
    group = f"{API}/groups/{{own_group}}/devices"
    return [
        Question("POST", group, {}, {"device_id": "device_id"}, "device_id"),
        Question("POST", f"{group}/bulk", {}, {"device_ids": ["device_id"]}, "device_id"),
        Question("DELETE", f"{group}/{{device_id}}", {}, None, "device_id"),
        Question(
            "DELETE", f"{API}/devices/{{own_device}}/keys/{{other_key}}", {}, None, "other_key"
        ),
        Question("GET", f"{API}/devices", {"group_id": "group_id"}, None, "group_id"),
        Question("GET", f"{API}/telemetry/latest", {"group_id": "group_id"}, None, "group_id"),
        Question("GET", f"{API}/events", {"user_id": "user_id"}, None, "user_id"),
        Question("DELETE", f"{API}/telemetry/{{device_id}}", MINUTES, None, "device_id"),
    ]


async def differences(world: World, questions: list[Question]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for question in questions:
        theirs = await asked_of_stores(world, question, world.names[question.name])
        nobodys = await asked_of_stores(world, question, MISSING)
        if theirs != nobodys:
            found[f"{question.method} {question.path} {question.caller}"] = (theirs, nobodys)
    return found


async def test_the_stores_are_asked_the_same(world: World) -> None:
    key = await world.client.get(
        f"{API}/devices/{world.names['device_id']}/keys", headers=world.headers["owner"]
    )
    world.names["other_key"] = key.json()["items"][0]["id"]
    questions = [*from_the_matrix(world), *beside_the_matrix()]
    assert len(questions) > 40
    assert await differences(world, questions) == {}


async def test_a_question_more_would_be_seen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    of = Devices.of

    async def curious(devices: Devices, caller: Caller, device_id: int) -> Device:
        try:
            return await of(devices, caller, device_id)
        finally:
            device = await devices._registry.device(device_id)
            if device is not None and isinstance(caller, UserCaller):
                await devices._registry.keys(device_id, devices._now())

    monkeypatch.setattr(Devices, "of", curious)
    question = Question("GET", f"{API}/devices/{{device_id}}", {}, None, "device_id")
    assert await differences(world, [question]) != {}
