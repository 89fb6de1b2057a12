"""Where the real servers are that a suite runs on, besides the embedded adapters."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

servers = pytest.mark.servers

_TOOL = Path(__file__).parents[2] / "deploy" / "local" / "servers.py"
# Which topology of deploy/local has it, and under which setting.
_LOCAL = {
    "IOTFLOW_TEST_POSTGRES_URL": ("postgres", "IOTFLOW_REGISTRY__URL"),
    "IOTFLOW_TEST_CASSANDRA_URL": ("cassandra", "IOTFLOW_TELEMETRY__URL"),
    "IOTFLOW_TEST_REDIS_URL": ("redis", "IOTFLOW_CACHE__URL"),
    "IOTFLOW_TEST_REDIS_SENTINEL_URL": ("redis-sentinel", "IOTFLOW_CACHE__URL"),
    "IOTFLOW_TEST_REDIS_CLUSTER_URL": ("redis-cluster", "IOTFLOW_CACHE__URL"),
    "IOTFLOW_TEST_MONGODB_URL": ("mongodb", "IOTFLOW_EVENTS__URL"),
}


def server_url(name: str) -> str:
    """A server's URL: from the environment variable, say IOTFLOW_TEST_POSTGRES_URL, or else of
    the server that deploy/local has started.

    A test that was chosen to run on a server and finds none has failed: were it
    skipped, nobody would notice that an adapter is never tried.
    """
    topology, setting = _LOCAL[name]
    url = os.environ.get(name) or _local_settings().get(topology, {}).get(setting)
    if not url:
        pytest.fail(f"no server: set {name}, or 'make servers TOPOLOGY={topology}'")
    return url


@cache
def _local_settings() -> dict[str, dict[str, str]]:
    told = subprocess.run(
        [sys.executable, str(_TOOL), "status", "--json"], capture_output=True, check=True
    )
    settings: dict[str, dict[str, str]] = json.loads(told.stdout)["settings"]
    return settings
