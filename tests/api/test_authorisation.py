"""Who may do what: every operation of the document crossed with every kind of caller.

What is expected stands here, apart from the rules, so that a rule that says less than it should
is seen; the last tests take each rule back, one after the other, and watch the table notice.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter

from iotflow.cli.operate import create_admin
from iotflow.domain.callers import DeviceCaller, UserCaller
from iotflow.http import authorisation
from iotflow.http.authorisation import RULES, Rule, Who, require_rules
from iotflow.settings import RateLimitSettings, Settings
from tests.api.conftest import PASSWORD, Account, create_account, create_device, serving

API = "/api/v1"
MINUTES = {"start_time": "-2m", "end_time": "-1m"}

CALLERS = (
    "nobody", "device", "other_device", "owner", "other_user", "read_token", "write_token",
    "deactivated", "revoked_key", "admin",
)  # fmt: skip
IN, UNKNOWN, FORBIDDEN, HIDDEN = "in", 401, 403, 404


def row(**outcomes: Any) -> dict[str, Any]:
    """What each caller gets; by default nobody is let in."""
    assert not set(outcomes) - set(CALLERS)
    return dict.fromkeys(CALLERS, UNKNOWN) | outcomes


ANYONE = dict.fromkeys(CALLERS, IN)
# One's own things in general: every user has some.
OWN_READ = row(owner=IN, other_user=IN, read_token=IN, write_token=IN, admin=IN)
OWN_WRITE = OWN_READ | {"read_token": FORBIDDEN}
# A thing of the owner's.
ITS_READ = OWN_READ | {"other_user": HIDDEN}
ITS_WRITE = OWN_WRITE | {"other_user": HIDDEN}
ADMIN_READ = row(
    owner=FORBIDDEN, other_user=FORBIDDEN, read_token=FORBIDDEN, write_token=FORBIDDEN, admin=IN
)
ADMIN_WRITE = ADMIN_READ
DEVICE = row(device=IN, other_device=IN)
ITS_READ_OR_DEVICE = ITS_READ | {"device": IN, "other_device": HIDDEN}


@dataclass(frozen=True)
class Call:
    """How an operation is called, so that an owner gets in, and who is let in."""

    expected: Mapping[str, Any]
    path: Mapping[str, str] = field(default_factory=dict[str, str])
    query: Mapping[str, Any] = field(default_factory=dict[str, Any])
    body: Any = None


DEVICE_ID, GROUP_ID, USER_ID = ({name: name} for name in ("device_id", "group_id", "user_id"))
NAMED = {"name": "x"}

# Bodies are wrong on purpose where a right one would change what the next caller finds: what is
# wrong is told to those alone who may call (see `outcome`).
EXPECTED: dict[str, Call] = {
    "register": Call(ANYONE),
    "login": Call(ANYONE, body={"username": "no", "password": "no"}),
    "issue_token": Call(ANYONE),
    "refresh": Call(ANYONE, body={"refresh_token": "no"}),
    "logout": Call(ANYONE, body={"refresh_token": "no"}),
    "change_password": Call(
        OWN_WRITE, body={"current_password": "no", "new_password": "long enough"}
    ),
    "list_tokens": Call(OWN_READ),
    "create_token": Call(OWN_WRITE, body=NAMED | {"scopes": ["read"]}),
    "delete_token": Call(ITS_WRITE | {"admin": HIDDEN}, {"token_id": "spare_token_id"}),
    "me": Call(OWN_READ),
    "get_user": Call(ITS_READ, USER_ID),
    "update_user": Call(ITS_WRITE, USER_ID, body={}),
    "list_users": Call(ADMIN_READ),
    "activate_user": Call(ADMIN_WRITE, USER_ID),
    "deactivate_user": Call(ADMIN_WRITE, {"user_id": "victim_id"}),
    "delete_user": Call(ADMIN_WRITE, {"user_id": "victim_id"}),
    "admin_list_devices": Call(ADMIN_READ),
    "admin_device_statuses": Call(ADMIN_READ),
    "admin_get_device": Call(ADMIN_READ, DEVICE_ID),
    "admin_update_device": Call(ADMIN_WRITE, DEVICE_ID, body={}),
    "admin_delete_device": Call(ADMIN_WRITE, {"device_id": "spare_device_id"}),
    "admin_set_device_status": Call(ADMIN_WRITE, DEVICE_ID, body={"status": "active"}),
    "admin_stats": Call(ADMIN_READ),
    "create_invitation": Call(ADMIN_WRITE),
    "begin_replay": Call(ADMIN_WRITE, body={"start_time": "-1m"}),
    "begin_verification": Call(ADMIN_WRITE, body={}),
    "begin_warming": Call(ADMIN_WRITE, body={}),
    "register_device": Call(OWN_WRITE, body=NAMED),
    "register_devices": Call(OWN_WRITE, body={"devices": [NAMED]}),
    "list_devices": Call(OWN_READ),
    "list_user_devices": Call(ITS_READ, USER_ID),
    "get_device": Call(ITS_READ, DEVICE_ID),
    "update_device": Call(ITS_WRITE, DEVICE_ID, body={"description": "x"}),
    "delete_device": Call(ITS_WRITE, {"device_id": "spare_device_id"}),
    "get_device_status": Call(ITS_READ, DEVICE_ID),
    "list_device_groups": Call(ITS_READ, DEVICE_ID),
    "list_device_keys": Call(ITS_READ, DEVICE_ID),
    "rotate_device_key": Call(ITS_WRITE, {"device_id": "keyed_device_id"}, body={}),
    "revoke_device_key": Call(
        ITS_WRITE, {"device_id": "spare_device_id", "key_id": "spare_key_id"}
    ),
    "device_config": Call(ITS_READ, DEVICE_ID),
    "set_device_config": Call(ITS_WRITE, DEVICE_ID, body={"a": 1}),
    "own_status": Call(DEVICE),
    "own_credentials": Call(DEVICE),
    "own_config": Call(DEVICE),
    "report_own_config": Call(DEVICE, body={"version": 1, "config": {}}),
    "heartbeat": Call(DEVICE),
    "create_group": Call(OWN_WRITE, body=NAMED),
    "list_groups": Call(OWN_READ),
    "get_group": Call(ITS_READ, GROUP_ID),
    "replace_group": Call(ITS_WRITE, GROUP_ID, body=NAMED),
    "delete_group": Call(ITS_WRITE, {"group_id": "spare_group_id"}),
    "list_group_devices": Call(ITS_READ, GROUP_ID),
    "add_group_device": Call(ITS_WRITE, GROUP_ID, body={"device_id": "device_id"}),
    "add_group_devices": Call(ITS_WRITE, GROUP_ID, body={"device_ids": [1]}),
    "remove_group_device": Call(ITS_WRITE, GROUP_ID | {"device_id": "member_id"}),
    "list_jobs": Call(OWN_READ),
    "get_job": Call(ITS_READ, {"job_id": "job_id"}),
    "submit_telemetry": Call(DEVICE, body={"data": {"t": 1}}),
    "submit_telemetry_batch": Call(DEVICE, body={"records": []}),
    "device_history": Call(ITS_READ_OR_DEVICE, DEVICE_ID),
    "device_latest": Call(ITS_READ_OR_DEVICE, DEVICE_ID),
    "device_aggregated": Call(
        ITS_READ_OR_DEVICE, DEVICE_ID, {"field": "t", "window": "1h", "aggregation": "mean"}
    ),
    "latest_of_many": Call(ITS_READ_OR_DEVICE, query={"device_id": "device_id"}),
    "user_history": Call(ITS_READ, USER_ID),
    "delete_history": Call(
        ITS_WRITE | {"device": FORBIDDEN, "other_device": FORBIDDEN}, DEVICE_ID, MINUTES
    ),
    "telemetry_status": Call(ANYONE),
    "list_events": Call(ITS_READ, query={"device_id": "device_id"}),
    **{name: Call(ANYONE) for name in ("service", "health", "live", "ready", "status", "metrics")},
}


class World:
    """A service with one of every kind of caller and things of the owner's."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.headers: dict[str, dict[str, str]] = {}
        self.names: dict[str, Any] = {}
        self.operations: dict[str, tuple[str, str]] = {}

    async def build(self, admin: Account) -> "World":
        client = self.client
        owner, other, victim, off = [await create_account(client) for _ in range(4)]
        device = await create_device(client, owner)
        other_device = await create_device(client, other)
        revoked = await create_device(client, owner)
        keyed = await create_device(client, owner)
        await self.post(f"/devices/{keyed.id}/keys", owner)
        self.headers |= {
            "nobody": {},
            "device": device.headers,
            "other_device": other_device.headers,
            "owner": owner.headers,
            "other_user": other.headers,
            "read_token": bearer(await self.token(owner, "read")),
            "write_token": bearer(await self.token(owner, "read", "write")),
            "deactivated": off.headers,
            "revoked_key": revoked.headers,
            "admin": admin.headers,
        }
        group = await self.post("/groups", owner, NAMED)
        doomed = await create_device(client, owner)
        job = await client.delete(f"{API}/devices/{doomed.id}", headers=owner.headers)
        self.names |= {
            "device_id": device.id,
            "keyed_device_id": keyed.id,
            "group_id": group["id"],
            "user_id": owner.id,
            "victim_id": victim.id,
            "job_id": job.json()["job"]["id"],
            "spare_device_id": device.id,
            "spare_group_id": group["id"],
            "spare_key_id": 1,
            "member_id": device.id,
        }
        point = {"data": {"t": 1}}
        await client.post(f"{API}/telemetry", json=point, headers=device.headers)
        await client.patch(f"{API}/users/{off.id}/deactivate", headers=admin.headers)
        await self.revoke(revoked.id, owner)
        document = (await client.get("/openapi.json")).json()
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                self.operations[operation["operationId"]] = (method.upper(), path)
        self._owner = owner
        return self

    async def post(self, path: str, by: Account, body: Any = None) -> dict[str, Any]:
        answer = await self.client.post(API + path, headers=by.headers, json=body)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def token(self, by: Account, *scopes: str) -> str:
        created = await self.post("/auth/tokens", by, {"name": "x", "scopes": scopes})
        self.names["spare_token_id"] = created["id"]
        return str(created["token"])

    async def revoke(self, device_id: int, by: Account) -> None:
        path = f"{API}/devices/{device_id}/keys"
        (key,) = (await self.client.get(path, headers=by.headers)).json()["items"]
        await self.client.delete(f"{path}/{key['id']}", headers=by.headers)

    async def outcome(self, operation: str, caller: str) -> Any:
        """IN, or the status that kept the caller out."""
        call = EXPECTED[operation]
        names = dict(self.names) | await self._spares(call)
        method, path = self.operations[operation]
        for parameter, name in call.path.items():
            path = path.replace(f"{{{parameter}}}", str(names[name]))
        query = {key: names.get(value, value) for key, value in call.query.items()}
        body = call.body
        if isinstance(body, dict):
            body = {key: names.get(str(value), value) for key, value in body.items()}
        answer = await self.client.request(
            method, path, params=query, headers=self.headers[caller], json=body
        )
        return judged(answer)

    async def _spares(self, call: Call) -> dict[str, int]:
        """Things that the call uses up, a new one each time."""
        spares: dict[str, int] = {}
        wanted = set(call.path.values())
        if "spare_device_id" in wanted:
            device = await create_device(self.client, self._owner)
            path = f"{API}/devices/{device.id}/keys"
            keys = await self.client.get(path, headers=self._owner.headers)
            spares["spare_device_id"] = device.id
            spares["spare_key_id"] = keys.json()["items"][0]["id"]
        if "spare_group_id" in wanted:
            spares["spare_group_id"] = (await self.post("/groups", self._owner, NAMED))["id"]
        if "spare_token_id" in wanted:
            body = {"name": "spare", "scopes": ["read"]}
            spares["spare_token_id"] = (await self.post("/auth/tokens", self._owner, body))["id"]
        if "member_id" in wanted:
            path = f"/groups/{self.names['group_id']}/devices"
            await self.post(path, self._owner, {"device_id": self.names["member_id"]})
        if "victim_id" in wanted:
            spares["victim_id"] = (await create_account(self.client)).id
        return spares

    async def deviations(self, operation: str) -> dict[str, Any]:
        """The callers for whom it is not as expected, with what they got."""
        found: dict[str, Any] = {}
        for caller in CALLERS:
            got = await self.outcome(operation, caller)
            if got != EXPECTED[operation].expected[caller]:
                found[caller] = got
        return found


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


_KEPT_OUT = {
    (401, "not_authenticated"), (401, "account_inactive"), (401, "session_ended"),
    (401, "invalid_api_key"), (403, "not_allowed"), (403, "insufficient_scope"),
    (404, "not_found"),
}  # fmt: skip


def judged(answer: httpx.Response) -> Any:
    """What is wrong with a request (422, a wrong password, a limit) is told to who is in."""
    if answer.status_code == 500:
        return 500
    if answer.is_success or answer.status_code == 503:
        return IN
    code = answer.json()["code"]
    return answer.status_code if (answer.status_code, code) in _KEPT_OUT else IN


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    data_dir: Path = tmp_path_factory.mktemp("authorisation")
    settings = Settings.load(data_dir=data_dir, rate_limits=RateLimitSettings(enabled=False))
    await asyncio.to_thread(create_admin, "root", "root@example.com", PASSWORD, data_dir)
    async with serving(settings) as client:
        login = {"username": "root", "password": PASSWORD}
        session = (await client.post(f"{API}/auth/login", json=login)).json()
        admin = Account(session["user"]["id"], "root", "", session["access_token"], "")
        yield await World(client).build(admin)


async def test_every_operation_has_a_rule_and_an_expectation(world: World) -> None:
    assert world.operations.keys() == EXPECTED.keys()
    assert world.operations.keys() == RULES.keys()


async def test_the_document_says_who_is_refused(world: World) -> None:
    document = (await world.client.get("/openapi.json")).json()
    for operation, (method, path) in world.operations.items():
        kept_out = {each for each in EXPECTED[operation].expected.values() if each != IN}
        said = document["paths"][path][method.lower()]["responses"].keys()
        assert {str(status) for status in kept_out} <= said, operation


def test_a_route_without_a_rule_is_not_served() -> None:
    router = APIRouter()
    router.add_api_route("/new", lambda: None, name="brand_new")
    with pytest.raises(RuntimeError, match="brand_new"):
        require_rules([router])


@pytest.mark.parametrize("operation", sorted(EXPECTED))
async def test_who_may(world: World, operation: str) -> None:
    assert await world.deviations(operation) == {}


@pytest.mark.parametrize(
    "name",
    [
        "device_id",
        "spare_device_id",
        "keyed_device_id",
        "user_id",
        "group_id",
        "spare_group_id",
        "job_id",
        "spare_token_id",
    ],
)
async def test_what_is_anothers_is_answered_as_what_is_not_there(world: World, name: str) -> None:
    for operation, call in EXPECTED.items():
        if name not in call.path.values() or call.expected["other_user"] != HIDDEN:
            continue
        method, path = world.operations[operation]
        answers: list[str] = []
        for value in (world.names[name], 2**50):
            way = path
            for parameter, each in call.path.items():
                way = way.replace(
                    f"{{{parameter}}}", str(value if each == name else world.names[each])
                )
            answer = await world.client.request(
                method,
                way,
                params=dict(call.query),
                json=call.body,
                headers=world.headers["other_user"],
            )
            document = answer.json()
            answers.append(json.dumps({**document, "request_id": ""}))
        assert answers[0] == answers[1], operation


def weaker(rule: Rule) -> list[tuple[str, Rule]]:
    """Every rule that asks one thing less, with what it does not ask for."""
    found: list[tuple[str, Rule]] = []
    if rule.writes:
        found.append(("scope", replace(rule, writes=False)))
    if rule.admin:
        found.append(("admin", replace(rule, admin=False)))
    if rule.users_only:
        found.append(("users_only", replace(rule, users_only=False)))
    if rule.own_user is not None:
        found.append(("own_user", replace(rule, own_user=None)))
    return found


# A device has no scopes: whether its call writes says which rate limit counts, no more.
MUTATIONS = [
    (operation, what, mutant)
    for operation, rule in RULES.items()
    for what, mutant in weaker(rule)
    if not (what == "scope" and rule.who is Who.DEVICE)
]


@pytest.mark.parametrize(
    ("operation", "what", "mutant"), MUTATIONS, ids=[f"{m[0]}-{m[1]}" for m in MUTATIONS]
)
async def test_a_rule_that_asks_less_is_noticed(
    world: World, monkeypatch: pytest.MonkeyPatch, operation: str, what: str, mutant: Rule
) -> None:
    monkeypatch.setitem(authorisation.RULES, operation, mutant)
    if mutant.admin and what == "scope":
        # An admin's rule stops the owner's reading token anyhow; an admin's own shows it.
        headers = await admins_reading_token(world)
        world.headers["admin_reading"] = headers
        assert await world.outcome(operation, "admin_reading") == IN
        monkeypatch.undo()
        assert await world.outcome(operation, "admin_reading") == FORBIDDEN
        return
    assert await world.deviations(operation) != {}


async def admins_reading_token(world: World) -> dict[str, str]:
    body = {"name": "reading", "scopes": ["read"]}
    answer = await world.client.post(
        f"{API}/auth/tokens", json=body, headers=world.headers["admin"]
    )
    return bearer(answer.json()["token"])


OWNED = sorted(
    operation
    for operation, call in EXPECTED.items()
    if call.expected["other_user"] == HIDDEN and operation != "delete_token"
)


@pytest.mark.parametrize("operation", OWNED)
async def test_without_the_question_whose_it_is_others_get_in(
    world: World, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    monkeypatch.setattr(UserCaller, "may_act_for", lambda *_: True)
    assert await world.outcome(operation, "other_user") == IN


@pytest.mark.parametrize(
    "operation",
    sorted(name for name, call in EXPECTED.items() if call.expected["other_device"] == HIDDEN),
)
async def test_without_the_question_which_device_it_is_others_get_in(
    world: World, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    monkeypatch.setattr(DeviceCaller, "is_device", lambda *_: True)
    assert await world.outcome(operation, "other_device") == IN
