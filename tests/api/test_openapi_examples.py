"""Every example of the OpenAPI document is run, and every answer is what the document says.

The calls go in the order in which a person would make them; what one answer tells (an id, a key)
is put into the calls after it where the example has only a placeholder.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import jsonschema_rs
import pytest

from iotflow.cli.operate import create_admin
from iotflow.http.authorisation import RULES, Who
from iotflow.http.examples import FORM
from iotflow.settings import RateLimitSettings, Settings
from tests.api.conftest import PASSWORD, serving
from tests.api.openapi_changes import current_document

METHODS = ("get", "post", "put", "patch", "delete")
PROBLEM = "application/problem+json"

# As a person would go through it. A name may come twice: what one call ends, another needs.
ORDER = (
    "service", "health", "live", "ready", "status", "metrics", "telemetry_status",
    "create_invitation", "register", "login", "refresh", "issue_token", "me", "update_user",
    "list_users", "get_user", "create_token", "list_tokens", "delete_token", "register_device",
    "register_devices", "list_devices", "list_user_devices", "get_device", "update_device",
    "get_device_status", "list_device_keys", "rotate_device_key", "revoke_device_key",
    "set_device_config", "own_config", "report_own_config", "device_config", "own_status",
    "own_credentials", "heartbeat", "create_group", "list_groups", "get_group", "replace_group",
    "add_group_device", "add_group_devices", "list_group_devices", "list_device_groups",
    "submit_telemetry", "submit_telemetry_batch", "device_latest", "latest_of_many",
    "device_history", "device_aggregated", "user_history", "list_events", "delete_history",
    "remove_group_device", "delete_group", "admin_list_devices", "admin_device_statuses",
    "admin_get_device", "admin_update_device", "admin_set_device_status", "admin_stats",
    "admin_delete_device", "delete_device", "get_job", "list_jobs", "begin_replay",
    "begin_verification", "begin_warming", "change_password", "logout",
    "deactivate_user", "activate_user", "delete_user",
)  # fmt: skip

# What stands in the way of each parameter of a path, by the name of what was learnt.
PATHS = {
    "delete_token": {"token_id": "token_id"},
    "list_device_keys": {"device_id": "second_device"},
    "revoke_device_key": {"device_id": "second_device", "key_id": "spare_key"},
    "delete_device": {"device_id": "third_device"},
    "admin_delete_device": {"device_id": "second_device"},
    "deactivate_user": {"user_id": "invited"},
    "activate_user": {"user_id": "invited"},
    "delete_user": {"user_id": "invited"},
}
NAMES = {"device_id": "device", "user_id": "user", "group_id": "group", "job_id": "job"}

# Placeholders in bodies: operation, field, and what takes its place.
FIELDS = {
    ("register", "invitation"): "invitation",
    ("refresh", "refresh_token"): "refresh_token",
    ("issue_token", "refresh_token"): "refresh_token",
    ("logout", "refresh_token"): "refresh_token",
    ("add_group_device", "device_id"): "device",
}
DEVICE_IDS = {42: "device", 43: "second_device"}

# Examples that show another answer than the first one, and say so.
ANSWERS = {
    ("register_devices", "partly"): 207,
    ("add_group_devices", "unknown"): 207,
    ("submit_telemetry", "partly"): 207,
    ("submit_telemetry_batch", "partly"): 207,
}
# Parameters that go together; all of them where nothing is said.
TOGETHER = {
    "device_aggregated": [
        {"field", "aggregation", "window", "timezone", "start_time", "end_time"},
        {"field", "points", "start_time", "end_time"},
    ],
    "latest_of_many": [{"device_id"}, {"group_id"}],
}
# What those have no example of, because it is an id.
QUERY_IDS = {("latest_of_many", "device_id"): "device", ("latest_of_many", "group_id"): "group"}
ADMINS = {("update_user", "role")}

# What is learnt from an answer, by its place in it.
LEARNT: dict[str, dict[str, tuple[Any, ...]]] = {
    "create_invitation": {"invitation": ("invitation",)},
    "login": {
        "token": ("access_token",),
        "user": ("user", "id"),
        "refresh_token": ("refresh_token",),
    },
    "refresh": {"token": ("access_token",), "refresh_token": ("refresh_token",)},
    "issue_token": {"token": ("access_token",), "refresh_token": ("refresh_token",)},
    "register_device": {"device": ("device", "id"), "key": ("api_key",)},
    "create_token": {"token_id": ("id",)},
    "list_device_keys": {"spare_key": ("items", 0, "id")},
    "create_group": {"group": ("id",)},
    "delete_device": {"job": ("job", "id")},
    "rotate_device_key": {"key": ("api_key",)},
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return current_document()


def operations(document: dict[str, Any]) -> dict[str, tuple[str, str, dict[str, Any]]]:
    return {
        methods[method]["operationId"]: (method, path, methods[method])
        for path, methods in document["paths"].items()
        for method in METHODS
        if method in methods
    }


def failures(document: dict[str, Any], schema: Any, value: Any) -> list[str]:
    """In what a value is not as a schema of the document has it."""
    whole = {**schema, "components": document["components"]}
    validator = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
    return [str(error) for error in validator.iter_errors(value)]


@dataclass
class Call:
    operation: str
    example: str
    method: str
    path: str
    query: dict[str, Any]
    body: Any
    media_type: str | None


@dataclass
class Walk:
    """Goes through the document, remembering what the answers tell."""

    document: dict[str, Any]
    client: httpx.AsyncClient
    admin_token: str
    known: dict[str, Any] = field(default_factory=dict[str, Any])
    wrong: list[str] = field(default_factory=list[str])
    called: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    async def all(self) -> None:
        found = operations(self.document)
        for name in ORDER:
            for call in self.calls(name, *found[name]):
                await self.make(call, found[name][2])

    def calls(self, name: str, method: str, path: str, operation: dict[str, Any]) -> Iterator[Call]:
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                known = PATHS.get(name, {}).get(parameter["name"]) or NAMES[parameter["name"]]
                path = path.replace(f"{{{parameter['name']}}}", str(self.known[known]))
        for query in self.queries(name, operation):
            bodies = list(bodies_of(operation))
            for example, media_type, value in bodies or [("query", None, None)]:
                body = self.filled(name, value)
                yield Call(name, example, method, path, query, body, media_type)

    def queries(self, name: str, operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
        parameters = {
            each["name"]: examples_of(each)
            for each in operation.get("parameters", [])
            if each["in"] == "query"
        }
        for (of, parameter), known in QUERY_IDS.items():
            if of == name:
                parameters[parameter] = [self.known[known]]
        for names in TOGETHER.get(name, [set(parameters)]):
            used = {each: parameters[each] for each in names if parameters[each]}
            for index in range(max((len(each) for each in used.values()), default=1)):
                yield {key: each[min(index, len(each) - 1)] for key, each in used.items()}

    def filled(self, name: str, value: Any) -> Any:
        """An example with what was learnt in place of its placeholders."""
        if not isinstance(value, dict):
            return value
        value = dict(value)
        for (operation, key), known in FIELDS.items():
            if operation == name and key in value:
                value[key] = self.known[known]
        if "device_ids" in value:
            ids = value["device_ids"]
            value["device_ids"] = [
                self.known[DEVICE_IDS[each]] if each in DEVICE_IDS else each for each in ids
            ]
        return value

    async def make(self, call: Call, operation: dict[str, Any]) -> None:
        content = None if call.media_type is None else encoded(call.body, call.media_type)
        headers = self.credentials(call) | ({"Content-Type": call.media_type} if content else {})
        answer = await self.client.request(
            call.method.upper(), call.path, params=call.query, content=content, headers=headers
        )
        self.called.append((call.operation, call.example))
        statuses = [
            int(each) for each in operation["responses"] if each in ("200", "201", "202", "204")
        ]
        expected = ANSWERS.get((call.operation, call.example))
        if answer.status_code not in ([expected] if expected else statuses):
            self.wrong.append(f"{call}: {answer.status_code} {answer.text[:300]}")
            return
        self.check(call, operation, answer)
        self.learn(call, answer)

    def credentials(self, call: Call) -> dict[str, str]:
        rule = RULES[call.operation]
        if rule.who is Who.ANYONE:
            return {}
        if rule.who is Who.DEVICE:
            return {"X-API-Key": self.known["key"]}
        if rule.admin or (call.operation, call.example) in ADMINS:
            return {"Authorization": f"Bearer {self.admin_token}"}
        return {"Authorization": f"Bearer {self.known['token']}"}

    def check(self, call: Call, operation: dict[str, Any], answer: httpx.Response) -> None:
        documented = operation["responses"][str(answer.status_code)].get("content", {})
        if not answer.content:
            if documented:
                self.wrong.append(f"{call}: no body, and the document says there is one")
            return
        media_type = answer.headers["content-type"].partition(";")[0]
        schema = documented[media_type]["schema"]
        value = answer.json() if media_type.endswith("json") else answer.text
        self.wrong += [f"{call}: {each}" for each in failures(self.document, schema, value)]

    def learn(self, call: Call, answer: httpx.Response) -> None:
        if call.example == "invited":
            self.known["invited"] = answer.json()["id"]
        if call.operation == "register_devices" and answer.status_code == 201:
            second, third = answer.json()["results"]
            self.known["second_device"] = second["device"]["id"]
            self.known["third_device"] = third["device"]["id"]
        for name, place in LEARNT.get(call.operation, {}).items():
            value = answer.json()
            for part in place:
                value = value[part]
            self.known[name] = value


def encoded(body: Any, media_type: str) -> str:
    if media_type == FORM:
        return urlencode(body)
    return body if isinstance(body, str) else json.dumps(body)


def bodies_of(operation: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        for name, example in content.get("examples", {}).items():
            yield name, media_type, example["value"]


def examples_of(parameter: dict[str, Any]) -> list[Any]:
    return list(parameter["schema"].get("examples", []))


@pytest.fixture(scope="module")
async def walk(
    document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Walk]:
    data_dir: Path = tmp_path_factory.mktemp("examples")
    settings = Settings.load(data_dir=data_dir, rate_limits=RateLimitSettings(enabled=False))
    await asyncio.to_thread(create_admin, "root", "root@example.com", PASSWORD, data_dir)
    async with serving(settings) as client:
        login = {"username": "root", "password": PASSWORD}
        session = (await client.post("/api/v1/auth/login", json=login)).json()
        walked = Walk(document, client, session["access_token"])
        await walked.all()
        yield walked


async def test_every_example_works_and_every_answer_is_as_documented(walk: Walk) -> None:
    assert not walk.wrong, "\n".join(walk.wrong)


async def test_every_example_was_run(walk: Walk) -> None:
    wanted = {
        (name, example)
        for name, (_, _, operation) in operations(walk.document).items()
        for example, _, _ in bodies_of(operation)
    }
    assert wanted <= set(walk.called)
    assert set(operations(walk.document)) == {name for name, _ in walk.called}


def test_every_body_has_an_example(document: dict[str, Any]) -> None:
    for name, (_, _, operation) in operations(document).items():
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            assert content.get("examples"), f"{name}: {media_type} without an example"
            for key, example in content["examples"].items():
                assert example["summary"], f"{name}: {key}"


def test_parameters_that_people_must_guess_have_examples(document: dict[str, Any]) -> None:
    for name, (_, _, operation) in operations(document).items():
        for parameter in operation.get("parameters", []):
            told = parameter["schema"]
            text = "string" in json.dumps(told) and "enum" not in json.dumps(told)
            if parameter["in"] == "query" and text and parameter["name"] != "cursor":
                explained = "$ref" in json.dumps(told) or told.get("examples")
                assert explained, f"{name}: {parameter['name']} without an example"


def test_every_answer_has_an_example_that_is_one(document: dict[str, Any]) -> None:
    for name, (_, _, operation) in operations(document).items():
        for status, answer in operation["responses"].items():
            for media_type, content in answer.get("content", {}).items():
                examples = content.get("examples", {})
                if media_type != PROBLEM:
                    assert examples, f"{name}: {status} {media_type} without an example"
                for example in examples.values():
                    wrong = failures(document, content["schema"], example["value"])
                    assert not wrong, f"{name}: {status} {wrong}"


def test_every_error_that_can_come_is_listed(document: dict[str, Any]) -> None:
    for name, (_, path, operation) in operations(document).items():
        listed = set(operation["responses"])
        wanted = {"422"} if operation.get("parameters") else set[str]()
        if "requestBody" in operation:
            wanted |= {"400", "413", "415", "422", "503"}
        if RULES[name].who is not Who.ANYONE:
            wanted |= {"401", "429", "503"}
        if "_id}" in path and "user_id" not in path:
            wanted |= {"404"}
        assert wanted <= listed, f"{name}: {wanted - listed}"
        for status in listed:
            if int(status) >= 400 and not path.startswith("/health"):
                assert PROBLEM in operation["responses"][status]["content"], f"{name}: {status}"


def test_every_operation_has_a_summary_of_its_own(document: dict[str, Any]) -> None:
    summaries = {
        name: operation["summary"] for name, (_, _, operation) in operations(document).items()
    }
    assert len(set(summaries.values())) == len(summaries)
    for name, summary in summaries.items():
        assert summary, name
        assert len(summary) <= 40, summary
