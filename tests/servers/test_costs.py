"""What a request costs the stores, counted by the servers themselves."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from redis import Redis

from iotflow.domain.times import DAY_MS
from tests.process.conftest import Credentials, register, served
from tests.servers.cassandra_session import plain_session
from tests.servers.stores import four_stores

pytestmark = pytest.mark.servers

POINTS, INDEX, DAYS = "telemetry_by_device", "latest_by_device", "days_by_device"
END = "iotflow:test:end"
# Of the service's own workers and of new connections, whatever requests there are.
OF_WORKERS = {"PING", "HELLO", "CLIENT", "SELECT", "SUBSCRIBE"}
Counts = dict[str, int]


@dataclass(frozen=True)
class Costly:
    """A service on stores of its own, with a device whose key and names it knows."""

    url: str
    credentials: Credentials
    settings: dict[str, str]

    def call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        url = f"{self.url}/api/v1{path}"
        arguments.setdefault("headers", self.credentials.key)
        return httpx.request(method, url, timeout=10, **arguments)

    def submit(self, *times_ms: int) -> None:
        records = [{"timestamp": at, "data": {"a": 1, "b": 2.5}} for at in times_ms]
        if len(records) == 1:
            answer = self.call("POST", "/telemetry", json=records[0])
        else:
            answer = self.call("POST", "/telemetry/batch", json={"records": records})
        assert answer.status_code == 201, answer.text

    async def cassandra(self) -> tuple[Counts, Counts]:
        """Partitions written and read so far, by table."""
        url = self.settings["IOTFLOW_TELEMETRY__URL"]
        keyspace = urlsplit(url).path.strip("/")
        counts: list[Counts] = []
        async with plain_session(url) as session:
            for view in ("local_write_latency", "local_read_latency"):
                rows = await session.rows(
                    f"SELECT keyspace_name, table_name, count FROM system_views.{view}"
                )
                counts.append({table: n for name, table, n in rows if name == keyspace})
        return counts[0], counts[1]

    @contextmanager
    def redis_commands(self) -> Iterator[list[str]]:
        """The commands that the service sends for requests while the block runs."""
        url = self.settings["IOTFLOW_CACHE__URL"]
        number = int(urlsplit(url).path.strip("/"))
        heard: list[str] = []
        self.call("GET", "/devices/credentials")  # the process knows the key for some seconds
        with Redis.from_url(url) as client, client.monitor() as monitor:
            yield heard
            client.set(END, 1)
            for command in monitor.listen():
                if command["db"] != number or command["client_type"] == "lua":
                    continue
                words = command["command"].split()
                if END in words:
                    break
                if words[0] not in OF_WORKERS and not words[1].startswith("cache:"):
                    heard.append(words[0])


@pytest.fixture(scope="module")
def costly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Costly]:
    # Counted limits, as in production: they must cost no call of their own.
    limits = {"IOTFLOW_RATE_LIMITS__ENABLED": "true", "IOTFLOW_CACHE_TTL__LATEST_S": "3600"}
    directory: Path = tmp_path_factory.mktemp("costs")
    with four_stores() as settings, served(directory, **settings | limits) as service:
        yield Costly(service.url, register(service.url), settings)


def noon_ms(days_ago: int) -> int:
    return int(time.time() * 1000) // DAY_MS * DAY_MS - days_ago * DAY_MS + DAY_MS // 2


def risen(before: tuple[Counts, Counts], after: tuple[Counts, Counts]) -> tuple[Counts, Counts]:
    """How much each count rose."""
    written, read = (
        {table: n - old.get(table, 0) for table, n in new.items()}
        for old, new in zip(before, after, strict=True)
    )
    return written, read


async def test_a_submit_costs_one_batch_a_day_and_one_for_the_index(costly: Costly) -> None:
    costly.submit(noon_ms(40))
    before = await costly.cassandra()
    costly.submit(noon_ms(41), noon_ms(41) + 1, noon_ms(42), noon_ms(43))
    written, read = risen(before, await costly.cassandra())
    assert written[POINTS] == 3, "one mutation for each of three days"
    assert written[DAYS] <= 1
    assert written.get(INDEX, 0) <= 1
    assert read.get(POINTS, 0) == 0


async def test_a_submit_of_a_known_day_is_one_mutation(costly: Costly) -> None:
    at_ms = int(time.time() * 1000)
    costly.submit(at_ms)
    before = await costly.cassandra()
    with costly.redis_commands() as commands:
        for turn in range(1, 11):
            costly.submit(at_ms - turn)
    written, read = risen(before, await costly.cassandra())
    assert written[POINTS] == 10
    assert (written.get(DAYS, 0), written.get(INDEX, 0)) == (0, 0)
    assert read.get(POINTS, 0) == 0
    assert 10 <= len(commands) <= 20, "two round trips at most"


async def test_a_latest_value_in_the_cache_costs_cassandra_nothing(costly: Costly) -> None:
    path = f"/telemetry/{costly.credentials.device_id}/latest"
    costly.submit(int(time.time() * 1000))
    costly.call("GET", path)  # fills the cache
    before = await costly.cassandra()
    with costly.redis_commands() as commands:
        answers = [costly.call("GET", path) for _ in range(10)]
    written, read = risen(before, await costly.cassandra())
    assert {answer.headers["X-Cache"] for answer in answers} == {"hit"}
    assert (read.get(POINTS, 0), read.get(INDEX, 0)) == (0, 0)
    assert sum(written.values()) == 0
    assert 10 <= len(commands) <= 20


async def test_a_page_reads_only_the_days_that_it_needs(costly: Costly) -> None:
    first_ms = noon_ms(30)
    for day in range(10):
        costly.submit(*(first_ms + day * DAY_MS + second * 1000 for second in range(10)))
    path = f"/telemetry/{costly.credentials.device_id}"
    # Thirty days in which ten have points; a day has twenty.
    params: dict[str, str | int] = {
        "start_time": first_ms - DAY_MS,
        "end_time": first_ms + 20 * DAY_MS,
        "order": "asc",
    }
    for limit, days in ((10, 1), (30, 2), (200, 10)):
        before = await costly.cassandra()
        answer = costly.call("GET", path, params=params | {"limit": limit})
        assert answer.json()["count"] == limit
        _, read = risen(before, await costly.cassandra())
        assert days <= read[POINTS] <= days + 1, "one more to know whether any is left"
