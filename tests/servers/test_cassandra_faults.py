"""The telemetry store while its node dies, freezes and comes back."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from iotflow.domain.points import Point, Submission
from iotflow.domain.times import MAX_TIMESTAMP_MS, TimeRange
from iotflow.errors import StoreUnavailableError
from iotflow.stores.breaker import Breaker, BreakerState
from iotflow.stores.telemetry.cassandra import CassandraTelemetryStore
from iotflow.stores.telemetry.protocol import HistoryQuery, Order
from tests.servers.cassandra_session import plain_session

pytestmark = pytest.mark.servers

SERVERS = [
    sys.executable,
    str(Path(__file__).resolve().parents[2] / "deploy" / "local" / "servers.py"),
]
PORT_OFFSET = 3000
LIMIT_S = 2.0
T0 = 1_767_225_600_000
EVER = TimeRange(0, MAX_TIMESTAMP_MS + 1)

_ids = count(1)
_marks = count(1_767_225_600_000_000)


class Node:
    """A node of these tests' own, that they may break."""

    def __init__(self, directory: Path) -> None:
        self._environment = os.environ | {
            "LOCAL_SERVERS_DIR": str(directory),
            "LOCAL_SERVERS_PORT_OFFSET": str(PORT_OFFSET),
        }
        self.url = ""

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*SERVERS, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> None:
        """Start it, or bring it back to life, and wait until it answers."""
        self.url = self._run("start", "cassandra").strip().partition("=")[2]

    def signal(self, number: int) -> None:
        nodes = json.loads(self._run("status", "--json"))["nodes"]
        os.kill(nodes["cassandra"]["pid"], number)

    def remove(self) -> None:
        self._run("remove")


@pytest.fixture(scope="module", name="node")
def _node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("cassandra"))
    node.start()
    yield node
    node.remove()


@pytest.fixture(name="store")
async def _store(node: Node) -> AsyncGenerator[CassandraTelemetryStore]:
    await asyncio.to_thread(node.start)
    store = CassandraTelemetryStore(node.url, limit_s=LIMIT_S)
    await store.open()
    yield store
    await asyncio.to_thread(node.start)
    await store.close()


def submission(device_id: int, at_ms: int) -> Submission:
    points = (Point(T0 + at_ms, "t", at_ms), Point(T0 + at_ms, "u", "text"))
    return Submission(device_id, 7, points, next(_marks))


async def answers_again(store: CassandraTelemetryStore, within_s: float) -> None:
    """It connects by itself: nobody opens it."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            await store.ping()
        except StoreUnavailableError:
            assert time.monotonic() < deadline, "the store did not come back"
            await asyncio.sleep(0.1)
        else:
            return


async def times_of(store: CassandraTelemetryStore, device_id: int) -> set[int]:
    page = await store.history(HistoryQuery(device_id, EVER, 1_000_000, Order.ASC))
    assert not page.more
    return {point.timestamp_ms - T0 for point in page.items}


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def timed(call: Any) -> tuple[float, BaseException | None]:
    began = time.monotonic()
    try:
        await call
    except Exception as error:
        return time.monotonic() - began, error
    return time.monotonic() - began, None


async def test_a_count_of_statements_is_the_servers_own(
    node: Node, store: CassandraTelemetryStore
) -> None:
    metric = (
        "SELECT value FROM system_views.cql_metrics WHERE name = 'prepared_statements_executed'"
    )
    device_id = next(_ids)
    await store.write(submission(device_id, 0))
    await store.latest([device_id])
    async with plain_session(node.url) as plain:
        ((before,),) = await plain.rows(metric)
        for turn in range(1, 51):
            await store.write(submission(device_id, turn))
        for _ in range(10):
            await store.latest([device_id])
        ((after,),) = await plain.rows(metric)
    assert after - before == 50 + 2 * 10


async def test_no_acknowledged_point_dies_with_the_node(
    node: Node, store: CassandraTelemetryStore
) -> None:
    device_ids = [next(_ids) for _ in range(20)]
    acknowledged: dict[int, set[int]] = {device_id: set() for device_id in device_ids}
    failed = 0
    stop = asyncio.Event()

    async def send(device_id: int) -> None:
        nonlocal failed
        for at_ms in count():
            if stop.is_set():
                return
            try:
                await store.write(submission(device_id, at_ms))
            except StoreUnavailableError:
                failed += 1
                await asyncio.sleep(0.05)
            else:
                acknowledged[device_id].add(at_ms)

    def written() -> int:
        return sum(map(len, acknowledged.values()))

    async def written_more_than(number: int, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while written() <= number:
            assert time.monotonic() < deadline, "nothing more was written"
            await asyncio.sleep(0.05)

    senders = [asyncio.create_task(send(device_id)) for device_id in device_ids]
    await asyncio.sleep(1.5)
    await written_more_than(100, within_s=30)
    await asyncio.to_thread(node.signal, signal.SIGKILL)
    await asyncio.sleep(0.5)
    before = written()
    await asyncio.to_thread(node.start)
    await answers_again(store, 10)
    await written_more_than(before + 100, within_s=90)
    stop.set()
    await asyncio.gather(*senders)
    assert failed
    for device_id, sent in acknowledged.items():
        assert sent <= await times_of(store, device_id)
        newest = (await store.latest([device_id]))[device_id]
        assert newest[0].timestamp_ms >= T0 + max(sent)


async def test_a_frozen_node_costs_the_limit_at_most_and_then_nothing(
    node: Node, store: CassandraTelemetryStore
) -> None:
    device_id = next(_ids)
    await store.write(submission(device_id, 0))
    await asyncio.to_thread(node.signal, signal.SIGSTOP)
    calls = [
        store.write(submission(device_id, 1)),
        store.write(submission(next(_ids), 1)),
        store.history(HistoryQuery(device_id, EVER, 10)),
        store.latest([device_id]),
        store.measurements(device_id),
        store.delete_range(device_id, TimeRange(T0 + 5, T0 + 6), next(_marks)),
        store.ping(),
    ]
    for took_s, error in await asyncio.gather(*(timed(call) for call in calls)):
        assert isinstance(error, StoreUnavailableError)
        assert took_s < LIMIT_S + 0.5
    assert store.breaker.opened == 1
    took_s, error = await timed(store.write(submission(device_id, 2)))
    assert isinstance(error, StoreUnavailableError)
    assert took_s < LIMIT_S, "nothing is waited for"
    await asyncio.to_thread(node.signal, signal.SIGCONT)
    await answers_again(store, 10)
    await store.write(submission(device_id, 3))
    assert {0, 3} <= await times_of(store, device_id)
    assert store.breaker.state is BreakerState.CLOSED


async def test_the_store_opens_when_the_node_comes(node: Node) -> None:
    await asyncio.to_thread(node.start)
    await asyncio.to_thread(node.signal, signal.SIGKILL)
    store = CassandraTelemetryStore(node.url)
    descriptors = open_descriptors()
    for _ in range(5):
        took_s, error = await timed(store.open())
        assert isinstance(error, StoreUnavailableError)
        assert took_s < 5
    assert open_descriptors() <= descriptors + 12
    await asyncio.to_thread(node.start)
    await store.open()
    device_id = next(_ids)
    await store.write(submission(device_id, 0))
    assert await times_of(store, device_id) == {0}
    await store.close()


async def test_to_give_up_while_it_connects_blocks_nothing(node: Node) -> None:
    await asyncio.to_thread(node.start)
    await asyncio.to_thread(node.signal, signal.SIGSTOP)
    try:
        store = CassandraTelemetryStore(node.url)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await store.open()
        took_s, error = await timed(store.close())
        assert error is None
        assert took_s < 5
        given_up = CassandraTelemetryStore(node.url)
        took_s, error = await timed(given_up.open())
        assert isinstance(error, StoreUnavailableError)
        assert took_s < 8
    finally:
        await asyncio.to_thread(node.signal, signal.SIGCONT)
    await given_up.open()
    await given_up.ping()
    await given_up.close()


async def test_a_breaker_of_the_callers_is_used(node: Node) -> None:
    await asyncio.to_thread(node.start)
    opened: list[bool] = []
    breaker = Breaker("telemetry", threshold=2, on_open=lambda: opened.append(True))
    store = CassandraTelemetryStore(node.url, breaker=breaker)
    await store.open()
    await asyncio.to_thread(node.signal, signal.SIGKILL)
    await asyncio.sleep(0.2)
    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            await store.ping()
    assert opened == [True]
    await asyncio.to_thread(node.start)
    await answers_again(store, 10)
    await store.close()
