"""What the real stores tell of themselves on /metrics, whatever one of them does not know."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.process.conftest import Served, register, served
from tests.servers.stores import four_stores, postgres_only

pytestmark = pytest.mark.servers
OFTEN = {"IOTFLOW_METRICS__STORES_EVERY_S": "0.5"}
FOUR = (
    'iotflow_cassandra_local_seconds{node="',
    'operation="write",quantile="0.99",store="telemetry",table="telemetry_by_device"}',
    'operation="read",quantile="0.5",store="telemetry",table="telemetry_by_device"}',
    'iotflow_cassandra_local_operations_total{node="',
    'iotflow_cassandra_disk_bytes{node="',
    'iotflow_cassandra_compactions{node="',
    'pool="CompactionExecutor",state="pending",store="telemetry"}',
    'iotflow_redis_hits_total{server="',
    'iotflow_redis_misses_total{server="',
    'kind="used",server="',
    'iotflow_redis_evictions_total{server="',
    'iotflow_redis_connections{server="',
    'iotflow_redis_client_total{kind="timeouts",store="cache"}',
    'iotflow_mongodb_documents{collection="events",store="events"}',
    'iotflow_mongodb_collection_bytes{collection="events",kind="documents",store="events"}',
    'iotflow_postgres_pool_connections{state="idle",store="registry"}',
    'iotflow_postgres_table_bytes{store="registry",table="devices"}',
    'iotflow_postgres_table_rows{kind="live",store="registry",table="users"}',
    'iotflow_postgres_connections{state="active",store="registry"}',
    'iotflow_postgres_transactions_total{end="commit",store="registry"}',
    'iotflow_store_seconds_bucket{le="0.001",operation="write",store="telemetry"}',
    'iotflow_store_seconds_bucket{le="0.001",operation="append",store="events"}',
)
ONE = (
    'iotflow_postgres_table_bytes{store="telemetry",table="points"}',
    'iotflow_postgres_table_bytes{store="events",table="events"}',
    'iotflow_postgres_pool_limit{store="telemetry"} 11.0',
    'iotflow_postgres_queued_points{store="telemetry"} 0.0',
    'iotflow_cache_entries{kind="logs",store="cache"}',
)


def until(service: Served, is_there: Callable[[str], list[str]]) -> str:
    deadline = time.monotonic() + 20
    while True:
        text = httpx.get(f"{service.url}/metrics", timeout=10).text
        if not (missing := is_there(text)):
            return text
        assert time.monotonic() < deadline, missing
        time.sleep(0.2)


def test_the_four_stores_tell_of_themselves(tmp_path: Path) -> None:
    with four_stores() as settings, served(tmp_path, **settings, **OFTEN) as service:
        device = register(service.url)
        for number in range(20):
            body = {"data": {"a": number}}
            url = f"{service.url}/api/v1/telemetry"
            assert httpx.post(url, json=body, headers=device.key).status_code == 201
        text = until(service, lambda text: [each for each in FOUR if each not in text])
        health = httpx.get(f"{service.url}/health", params={"detailed": True}).json()
        assert health["status"] == "healthy", health
    # The stand-in for MongoDB knows no replication: no sample, and nobody is the worse for it.
    assert "iotflow_mongodb_replication_lag_seconds{" not in text
    failures = [line for line in text.splitlines() if "statistics_failures_total{" in line]
    assert [line.split()[-1] for line in failures] == ["0.0"] * 4


def test_postgres_alone_tells_of_each_role(tmp_path: Path) -> None:
    with postgres_only() as settings, served(tmp_path, **settings, **OFTEN) as service:
        register(service.url)
        until(service, lambda text: [each for each in ONE if each not in text])
