"""What the embedded stores tell of themselves on /metrics."""

import asyncio
from pathlib import Path

import httpx

from iotflow.settings import MetricsSettings, RateLimitSettings, Settings
from tests.api.conftest import create_account, create_device, serving

WANTED = (
    'iotflow_sqlite_bytes{file="data",store="registry"}',
    'iotflow_sqlite_bytes{file="wal",store="telemetry"}',
    'iotflow_sqlite_bytes{file="data",store="events"}',
    'iotflow_sqlite_journal_points{store="telemetry"}',
    'iotflow_sqlite_queued_points{store="telemetry"}',
    'iotflow_sqlite_commits_total{store="telemetry"}',
    'iotflow_cache_entries{kind="latest",store="cache"}',
    'iotflow_store_statistics_age_seconds{store="telemetry"}',
    'iotflow_store_seconds_count{operation="write",store="telemetry"}',
    'iotflow_store_seconds_count{operation="create_devices",store="registry"}',
)


async def metrics(client: httpx.AsyncClient) -> str:
    return (await client.get("/metrics")).text


async def test_sizes_and_depths_are_told_in_the_background(data_dir: Path) -> None:
    settings = Settings.load(
        data_dir=data_dir,
        rate_limits=RateLimitSettings(enabled=False),
        metrics=MetricsSettings(stores_every_s=0.1),
    )
    async with serving(settings) as client:
        device = await create_device(client, await create_account(client))
        body = {"data": {"a": 1, "b": 2}}
        sent = await client.post("/api/v1/telemetry", json=body, headers=device.headers)
        assert sent.status_code == 201
        wanted = (*WANTED, 'iotflow_sqlite_commits_total{store="telemetry"} 1.0')
        for _ in range(200):
            text = await metrics(client)
            if not (missing := [each for each in wanted if each not in text]):
                return
            await asyncio.sleep(0.05)
    raise AssertionError(missing)
