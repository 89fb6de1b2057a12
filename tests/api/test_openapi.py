"""The OpenAPI document: committed, complete, and kept for the programs written against it."""

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.api.openapi_changes import COMMITTED, breaking_changes, current_document, written

HOW = "write it anew: python -m tests.api.openapi_changes"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return current_document()


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_the_committed_document_is_that_of_the_code(document: dict[str, Any]) -> None:
    committed = json.loads(COMMITTED.read_text(encoding="utf-8"))
    broken = breaking_changes(committed, document)
    assert not broken, "breaks programs that are written against it:\n" + "\n".join(broken)
    added = sorted(operations(document).keys() - operations(committed).keys())
    assert COMMITTED.read_text(encoding="utf-8") == written(document), (
        f"docs/openapi.json is out of date (new: {', '.join(added) or 'details'}); {HOW}"
    )


async def test_the_service_serves_it(client: httpx.AsyncClient, document: dict[str, Any]) -> None:
    assert (await client.get("/openapi.json")).json() == document


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    known = {tag["name"] for tag in document["tags"]}
    assert all(tag["description"] for tag in document["tags"])
    names: list[str] = []
    for name, operation in operations(document).items():
        assert len(operation.get("description", "")) > 10, name
        assert operation["tags"], name
        assert set(operation["tags"]) <= known, f"{name}: a tag without a description"
        names.append(operation["operationId"])
        assert any(status.startswith("2") for status in operation["responses"]), name
    assert len(names) == len(set(names)), "operation ids are method names of generated clients"


def test_whatever_needs_credentials_says_which(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    assert (schemes["Bearer"]["type"], schemes["Bearer"]["scheme"]) == ("http", "bearer")
    device_key = schemes["DeviceKey"]
    assert (device_key["in"], device_key["name"]) == ("header", "X-API-Key")
    for name, operation in operations(document).items():
        for requirement in operation.get("security", []):
            assert requirement.keys() <= schemes.keys(), name
        if "401" in operation["responses"] and "/auth/" not in name:
            assert operation.get("security") or name == "GET /metrics", name


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for name in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)):
        assert name in document["components"]["schemas"]


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_its_pages_need_no_internet(client: httpx.AsyncClient, page: str) -> None:
    answer = await client.get(page)
    assert answer.status_code == 200
    loaded = re.findall(r'(?:src|href)\s*=\s*"([^"]+)"', answer.text)
    assert loaded
    for address in loaded:
        assert address.startswith(("/", "data:")), address
        assert not address.startswith("//"), address
        if address.startswith("/"):
            assert (await client.get(address)).status_code == 200, address
    assert not re.search(r"(?<!xmlns=\")https?://", answer.text), "an address of elsewhere"


def submit(document: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = document["paths"]["/api/v1/devices"]["get"]
    return operation


def schema(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["schemas"][name]
    return found


def _rename_device_name(document: dict[str, Any]) -> None:
    properties = schema(document, "EventOut")["properties"]
    properties["kind"] = properties.pop("event_type")


def _ask_for_more(document: dict[str, Any]) -> None:
    schema(document, "GroupBody")["required"].append("color")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d["paths"].pop("/api/v1/events"), "GET /api/v1/events is gone"),
        (lambda d: submit(d).update(operationId="devices"), "operation id list_devices became"),
        (lambda d: submit(d)["parameters"].pop(0), "the query parameter status is gone"),
        (lambda d: submit(d)["parameters"][0].update(required=True), "status is required now"),
        (lambda d: submit(d)["responses"].pop("200"), "it answers 200 no more"),
        (_rename_device_name, "the 200, items:, each: has no event_type any more"),
        (_ask_for_more, "POST /api/v1/groups: the body must have color now"),
        (
            lambda d: schema(d, "GroupBody")["properties"]["name"].update(maxLength=3),
            "the body, name: has a smaller maxLength now",
        ),
        (
            lambda d: schema(d, "EventOut")["properties"]["id"].update(type="integer"),
            "id: held string and holds integer",
        ),
        (
            lambda d: d["paths"]["/health/live"]["get"].update(security=[{"Bearer": []}]),
            "GET /health/live: it asks for credentials now",
        ),
    ],
)
def test_what_breaks_is_said_in_words(
    document: dict[str, Any], change: Callable[[dict[str, Any]], object], told: str
) -> None:
    changed = copy.deepcopy(document)
    change(changed)
    broken = breaking_changes(document, changed)
    assert any(told in each for each in broken), broken
    assert breaking_changes(document, document) == []


def test_what_is_added_breaks_nothing(document: dict[str, Any]) -> None:
    changed = copy.deepcopy(document)
    changed["paths"]["/api/v1/more"] = changed["paths"]["/api/v1/events"]
    submit(changed)["parameters"].append(
        {"in": "query", "name": "more", "required": False, "schema": {"type": "string"}}
    )
    schema(changed, "EventOut")["properties"]["more"] = {"type": "string"}
    schema(changed, "GroupBody")["properties"]["more"] = {"type": "string"}
    assert breaking_changes(document, changed) == []
