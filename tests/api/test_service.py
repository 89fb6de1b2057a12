import re
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from iotflow.settings import MetricsSettings, RateLimitSettings, Settings
from tests.api.conftest import (
    DeviceUnderTest,
    create_account,
    create_device,
    serving,
)


async def test_telemetry_status_is_the_guides_document(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/v1/telemetry/status")
    assert answer.json() == {
        "status": "healthy",
        "databases": {
            "cassandra": {
                "available": True,
                "role": "Time-series telemetry storage",
                "backend": "sqlite",
            },
            "redis": {"available": True, "role": "Caching layer", "backend": "memory"},
            "mongodb": {
                "available": True,
                "role": "Event logging and analytics",
                "backend": "sqlite",
            },
            "postgres": {
                "available": True,
                "role": "User and device management",
                "backend": "sqlite",
            },
        },
    }


async def test_health_tells_of_stores_workers_and_queues(client: httpx.AsyncClient) -> None:
    brief = (await client.get("/health")).json()
    assert brief.keys() == {"status", "version", "uptime_s"}
    full = (await client.get("/health", params={"detailed": "true"})).json()
    assert full["status"] == "healthy"
    assert {worker["state"] for worker in full["workers"].values()} == {"running"}
    assert {"event_log", "last_seen", "lane", "revocations"} <= full["workers"].keys()
    assert full["queues"].keys() == {"events", "last_seen"}


async def test_live_ready_status_and_the_front_door(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health/live")).json() == {"status": "alive"}
    assert (await client.get("/health/ready")).json() == {"status": "ready", "reasons": []}
    assert (await client.get("/status")).json()["databases"]["postgres"]["available"] is True
    front = (await client.get("/")).json()
    assert front["name"] == "IoTFlow"
    for link in ("docs", "redoc", "openapi", "health", "metrics"):
        assert (await client.get(front["links"][link])).status_code == 200


async def test_metrics_count_requests_by_route_and_status(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    async def metric(name: str, **labels: str) -> float:
        text = (await client.get("/metrics")).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return 0.0

    submits = {"method": "POST", "route": "/api/v1/telemetry", "status": "201"}
    reads = {"route": "/api/v1/telemetry/{device_id}/latest", "status": "200"}
    before = [
        await metric("iotflow_http_requests_total", **submits),
        await metric("iotflow_http_requests_total", **reads),
        await metric("iotflow_points_total", verdict="accepted"),
        await metric("iotflow_store_seconds_count", store="telemetry", operation="write"),
    ]
    body = {"data": {"a": 1, "b": 2}}
    await client.post("/api/v1/telemetry", json=body, headers=device.headers)
    await client.get(f"/api/v1/telemetry/{device.id}/latest", headers=device.headers)
    after = [
        await metric("iotflow_http_requests_total", **submits),
        await metric("iotflow_http_requests_total", **reads),
        await metric("iotflow_points_total", verdict="accepted"),
        await metric("iotflow_store_seconds_count", store="telemetry", operation="write"),
    ]
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1, 2, 1]
    assert await metric("iotflow_queue_depth", queue="events") >= 0
    assert await metric("iotflow_store_up", store="telemetry") == 1
    assert await metric("iotflow_cache_lookups_total", kind="latest", result="miss") > 0


async def test_paths_that_do_not_exist_share_one_label(client: httpx.AsyncClient) -> None:
    for path in ("/a", "/b", "/api/v1/c"):
        await client.get(path)
    text = (await client.get("/metrics")).text
    routes = set(re.findall(r'iotflow_http_requests_total\{[^}]*route="([^"]*)"', text))
    assert "(none)" in routes
    assert not routes & {"/a", "/b", "/api/v1/c"}


async def test_metrics_can_ask_for_a_token(data_dir: Path) -> None:
    settings = Settings.load(data_dir=data_dir, metrics=MetricsSettings(token="s3cret-token"))  # type: ignore[arg-type]
    async with serving(settings) as client:
        assert (await client.get("/metrics")).status_code == 401
        wrong = {"Authorization": "Bearer wrong"}
        assert (await client.get("/metrics", headers=wrong)).status_code == 401
        right = {"Authorization": "Bearer s3cret-token"}
        assert (await client.get("/metrics", headers=right)).status_code == 200


async def test_without_a_cache_everything_works(data_dir: Path) -> None:
    settings = Settings.load(
        data_dir=data_dir,
        cache={"url": "none://"},  # type: ignore[arg-type]
        rate_limits=RateLimitSettings(enabled=False),
    )
    async with serving(settings) as client:
        device = await create_device(client, await create_account(client))
        for value in range(3):
            body = {"data": {"a": value}}
            sent = await client.post("/api/v1/telemetry", json=body, headers=device.headers)
            assert sent.status_code == 201
            url = f"/api/v1/telemetry/{device.id}/latest"
            latest = await client.get(url, headers=device.headers)
            assert latest.json()["data"] == {"a": value}
            assert latest.headers["x-cache"] == "miss"


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_explorer_needs_no_internet(client: httpx.AsyncClient, path: str) -> None:
    page = (await client.get(path)).text
    linked = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert linked
    assert not [link for link in linked if link.startswith(("http", "//"))]
    for link in linked:
        assert (await client.get(link)).status_code == 200


async def test_a_key_that_is_looked_up_is_counted_once(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    async def lookups() -> dict[str, float]:
        text = (await client.get("/metrics")).text
        return {
            sample.labels["result"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "iotflow_cache_lookups_total" and sample.labels["kind"] == "local_key"
        }

    before = await lookups()
    for _ in range(3):
        found = await client.get("/api/v1/devices/credentials", headers=device.headers)
        assert found.status_code == 200
    after = await lookups()
    assert (after["miss"] - before["miss"], after["hit"] - before["hit"]) == (1, 2)
