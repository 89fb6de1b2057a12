"""Hot routes answer what the framework's routes would; what is odd they leave to those."""

from typing import Any

import httpx
import pytest

from iotflow.devices.hot import HOT_ROUTES as DEVICE_ROUTES
from iotflow.telemetry.hot import HOT_ROUTES as TELEMETRY_ROUTES
from tests.api.conftest import DeviceUnderTest

API = "/api/v1/telemetry"
START = 1_767_225_600_000
# A framework's route it is for anything but a plain Accept.
SLOW = {"Accept": "application/json; q=1"}


async def test_every_hot_route_is_in_the_document(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    for route in (*TELEMETRY_ROUTES, *DEVICE_ROUTES):
        assert route.method.lower() in paths[route.path]


@pytest.fixture
async def filled(client: httpx.AsyncClient, device: DeviceUnderTest) -> DeviceUnderTest:
    records = [
        {"timestamp": START + n * 1000, "data": {"a": n, "b": {"value": n / 2, "unit": "m"}}}
        for n in range(30)
    ]
    sent = await client.post(f"{API}/batch", json={"records": records}, headers=device.headers)
    assert sent.status_code == 201
    return device


@pytest.mark.parametrize(
    "query",
    [
        {"start_time": START, "end_time": START + 60_000},
        {"start_time": START, "end_time": START + 60_000, "limit": 7, "order": "asc"},
        {"start_time": "2026-01-01T00:00:05+00:00", "end_time": START + 9_000},
        {"start_time": START, "end_time": START + 60_000, "measurement": ["b", "a"], "limit": 3},
        {"start_time": START, "end_time": START + 60_000, "measurement": "none"},
        {"start_time": START, "limit": 0},
        {"start_time": START, "limt": 5},
        {"start_time": ["1", "2"]},
        {"cursor": "x"},
    ],
)
async def test_history_is_the_same_either_way(
    client: httpx.AsyncClient, filled: DeviceUnderTest, query: dict[str, Any]
) -> None:
    for headers in (filled.headers, filled.owner.headers):
        url = f"{API}/{filled.id}"
        hot = await client.get(url, params=query, headers=headers)
        slow = await client.get(url, params=query, headers=headers | SLOW)
        assert hot.status_code == slow.status_code
        assert _without_id(hot) == _without_id(slow)
        if hot.status_code == 200 and hot.json()["next_cursor"]:
            more = query | {"cursor": hot.json()["next_cursor"]}
            second = await client.get(url, params=more, headers=headers)
            assert second.status_code == 200
            assert second.json()["data"]
            assert second.json()["data"][0] not in hot.json()["data"]


def _without_id(answer: httpx.Response) -> dict[str, Any]:
    document: dict[str, Any] = answer.json()
    return document | {"request_id": None}


@pytest.mark.parametrize("path", [f"{API}/{{}}/latest", "/api/v1/devices/credentials"])
async def test_reads_by_key_and_by_token(
    client: httpx.AsyncClient, filled: DeviceUnderTest, path: str
) -> None:
    url = path.format(filled.id)
    by_key = await client.get(url, headers=filled.headers)
    assert by_key.status_code == 200
    assert by_key.headers["content-type"] == "application/json"
    assert by_key.headers["x-request-id"]
    nobody = await client.get(url)
    assert (nobody.status_code, nobody.json()["code"]) == (401, "not_authenticated")
    assert "www-authenticate" in nobody.headers
    unknown = await client.get(url, params={"x": 1}, headers=filled.headers)
    assert unknown.status_code == 422
    assert unknown.json()["errors"][0]["field"] == "x"


async def test_latest_of_others_does_not_exist(
    client: httpx.AsyncClient, filled: DeviceUnderTest, new_device: Any
) -> None:
    other = await new_device()
    for number in (filled.id, 999_999_999):
        answer = await client.get(f"{API}/{number}/latest", headers=other.headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("number", ["0", "01", "9" * 19, "1e3", "٣", "+1"])
async def test_numbers_that_are_no_id_are_explained(
    client: httpx.AsyncClient, device: DeviceUnderTest, number: str
) -> None:
    answer = await client.get(f"{API}/{number}/latest", headers=device.headers)
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_hot_requests_are_counted_by_their_template(
    client: httpx.AsyncClient, filled: DeviceUnderTest
) -> None:
    await client.get(f"{API}/{filled.id}/latest", headers=filled.headers)
    metrics = (await client.get("/metrics")).text
    assert (
        'iotflow_http_requests_total{method="GET",route="/api/v1/telemetry/{device_id}/latest"'
        in metrics
    )
