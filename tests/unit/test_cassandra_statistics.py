"""What the nodes of a ring tell of themselves while one of them is away."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from acsylla import errors

from iotflow.errors import StoreUnavailableError
from iotflow.stores.breaker import Breaker, BreakerState
from iotflow.stores.statistics import Statistic
from iotflow.stores.telemetry.cassandra import statistics
from iotflow.stores.telemetry.cassandra.driver import Driver

NODES = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
ROWS: dict[str, list[tuple[Any, ...]]] = {
    "local_write_latency": [("points", 0.1, 0.2, 0.3, 5)],
    "local_read_latency": [],
    "disk_usage": [("points", 3)],
    "sstable_tasks": [],
    "thread_pools": [("ReadStage", 1, 2, 3), ("Another", 4, 5, 6)],
}


class Statement:
    def __init__(self, cql: str, **_: Any) -> None:
        self.cql = cql
        self.node: str | None = None

    def set_host(self, node: str, _: int) -> None:
        self.node = node


class Row(tuple[Any, ...]):
    def as_tuple(self) -> tuple[Any, ...]:
        return tuple(self)


class Session:
    """A ring whose nodes take turns where none is asked for by name."""

    def __init__(self) -> None:
        self.dead: set[str] = set()
        self.frozen: set[str] = set()
        self.hidden: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self._turn = 0

    async def execute(self, statement: Statement) -> Sequence[Row]:
        node = statement.node or NODES[self._turn % len(NODES)]
        self._turn += statement.node is None
        table = statement.cql.split(" FROM ")[1].split()[0].partition(".")[2]
        self.asked.append((node, table))
        if node in self.dead:
            raise errors.CassErrorLibNoHostsAvailable("down")
        if node in self.frozen:
            await asyncio.Event().wait()
        if table in self.hidden:
            raise errors.CassErrorServerInvalidQuery("no such table")
        if table == "local":
            return [Row((node,))]
        if table == "peers_v2":
            return [Row((each,)) for each in NODES if each != node]
        return [Row(row) for row in ROWS[table]]

    def views(self, node: str) -> int:
        """How many it was asked."""
        return sum(asked == node and table in ROWS for asked, table in self.asked)


class Ring:
    def __init__(self) -> None:
        self.session = Session()
        self.breaker = Breaker("telemetry", threshold=2)
        self.driver = Driver(
            SimpleNamespace(port=9042),
            self.breaker,
            limit_s=2.0,
            request_timeout_s=0.9,
            max_in_flight=10,
            max_waiting=10,
            io_threads=1,
            connections_a_host=1,
        )
        self.driver._session = self.session

    async def told(self) -> dict[str, list[Statistic]]:
        """By node."""
        found: dict[str, list[Statistic]] = {node: [] for node in NODES}
        for each in await statistics.statistics(self.driver, "keyspace"):
            found[dict(each.labels)["node"]].append(each)
        return found


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Ring:
    monkeypatch.setattr(statistics, "_acsylla", SimpleNamespace(create_statement=Statement))
    monkeypatch.setattr(statistics, "_QUESTION_S", 0.05)
    return Ring()


async def test_each_node_tells_of_itself(ring: Ring) -> None:
    """Whichever of them is asked who there is."""
    for _ in range(len(NODES)):
        told = await ring.told()
        assert {len(each) for each in told.values()} == {10}
    assert ("iotflow_cassandra_compactions", 0.0) in {
        (each.name, each.value) for each in told[NODES[0]]
    }


@pytest.mark.parametrize("fault", ["dead", "frozen"])
async def test_a_node_that_is_away_costs_the_others_nothing(ring: Ring, fault: str) -> None:
    getattr(ring.session, fault).add(NODES[0])
    for _ in range(len(NODES)):
        told = await ring.told()
        assert [len(told[node]) for node in NODES] == [0, 10, 10], "no sample, not one of zero"
    assert (ring.breaker.state, ring.breaker.opened) == (BreakerState.CLOSED, 0)
    assert ring.session.views(NODES[0]) == len(NODES), "after its first silence it is left alone"


async def test_a_view_that_is_not_there_costs_the_others_nothing(ring: Ring) -> None:
    ring.session.hidden.add("sstable_tasks")
    told = await ring.told()
    assert {len(each) for each in told.values()} == {8}
    assert "iotflow_cassandra_compactions" not in {each.name for each in told[NODES[0]]}


async def test_without_any_node_the_store_is_away_and_the_breaker_knows_nothing(
    ring: Ring,
) -> None:
    ring.session.dead.update(NODES)
    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            await ring.told()
    assert ring.breaker.state is BreakerState.CLOSED


async def test_what_works_does_not_close_a_breaker(ring: Ring) -> None:
    ring.breaker.failed()
    await ring.told()
    ring.breaker.failed()
    assert ring.breaker.state is BreakerState.OPEN
