"""What Cassandra tells of itself in its virtual tables, node by node."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import acsylla

from iotflow.errors import OverloadedError, StoreUnavailableError
from iotflow.stores.statistics import Statistic
from iotflow.stores.telemetry.cassandra.driver import Driver
from iotflow.stores.telemetry.cassandra.failures import CALLERS_FAULT

_acsylla: Any = acsylla
_Row = tuple[Any, ...]

_OWN = "SELECT rpc_address FROM system.local"
_PEERS = "SELECT native_address FROM system.peers_v2"
# The views know no 95th percentile; `iotflow_store_seconds`, which is measured here, has it.
_LATENCIES = (
    "SELECT table_name, p50th_ms, p99th_ms, max_ms, count FROM system_views.{view}"
    " WHERE keyspace_name = '{keyspace}'"
)
_DISK = (
    "SELECT table_name, mebibytes FROM system_views.disk_usage WHERE keyspace_name = '{keyspace}'"
)
_COMPACTIONS = "SELECT kind, progress, total FROM system_views.sstable_tasks"
_POOLS = "SELECT name, active_tasks, pending_tasks, blocked_tasks FROM system_views.thread_pools"
_POOLS_SHOWN = frozenset(
    {"CompactionExecutor", "MutationStage", "ReadStage", "MemtableFlushWriter"}
)
_MEBIBYTE = 1024 * 1024
# All together stay below what the collector waits for (pipeline/store_statistics.py).
_QUESTION_S = 0.8
_NODE_S = 2.0


async def statistics(driver: Driver, keyspace: str) -> list[Statistic]:
    """Of every node that answers and shows its views. One that does not is no failure of the
    store, and costs the others nothing.

    Raises:
        StoreUnavailableError: there is no connection.
    """
    nodes = await _nodes(driver)
    told = await asyncio.gather(*[_of_node(driver, keyspace, node) for node in nodes])
    return [each for statistics in told for each in statistics]


async def _nodes(driver: Driver) -> list[str]:
    """Addresses for clients. A view tells of the node that is asked, so each is asked by name."""
    try:
        ((own,),) = await _rows(driver, _OWN, None)
    except StoreUnavailableError:
        ((own,),) = await _rows(driver, _OWN, None)  # of another: the driver takes turns
    # Of the same one: no node is its own peer.
    peers = await _rows(driver, _PEERS, str(own))
    return sorted({str(own), *(str(address) for (address,) in peers)})


async def _of_node(driver: Driver, keyspace: str, node: str) -> list[Statistic]:
    """What it tells until it does not answer. Of a view that it does not have there is nothing."""
    found: list[Statistic] = []
    with suppress(StoreUnavailableError, OverloadedError, TimeoutError):
        async with asyncio.timeout(_NODE_S):
            for cql, read in _views(keyspace):
                with suppress(*CALLERS_FAULT):  # no such view, or not for this user
                    found += [
                        each._replace(labels=(("node", node), *each.labels))
                        for each in read(await _rows(driver, cql, node))
                    ]
    return found


async def _rows(driver: Driver, cql: str, node: str | None) -> list[_Row]:
    statement = _acsylla.create_statement(cql, parameters=0)
    if node is not None:
        statement.set_host(node, driver.port)
    return await driver.ask(statement, _QUESTION_S)


def _views(keyspace: str) -> Iterable[tuple[str, Callable[[list[_Row]], list[Statistic]]]]:
    for kind in ("write", "read"):
        cql = _LATENCIES.format(view=f"local_{kind}_latency", keyspace=keyspace)
        yield cql, lambda rows, kind=kind: _latencies(kind, rows)
    yield _DISK.format(keyspace=keyspace), _disk
    yield _COMPACTIONS, _compactions
    yield _POOLS, _pools


def _latencies(kind: str, rows: list[_Row]) -> list[Statistic]:
    found: list[Statistic] = []
    for table, p50_ms, p99_ms, max_ms, count in rows:
        labels = (("table", str(table)), ("operation", kind))
        found += [
            Statistic(
                "iotflow_cassandra_local_seconds",
                "How long a node takes for its own part of an operation",
                value / 1000,
                (*labels, ("quantile", quantile)),
            )
            for quantile, value in (("0.5", p50_ms), ("0.99", p99_ms), ("1", max_ms))
            if value is not None
        ]
        found.append(
            Statistic(
                "iotflow_cassandra_local_operations",
                "Operations of a node on its own data",
                float(count),
                labels,
                True,
            )
        )
    return found


def _disk(rows: list[_Row]) -> list[Statistic]:
    return [
        Statistic(
            "iotflow_cassandra_disk_bytes",
            "Disk that a table uses on a node",
            float(mebibytes) * _MEBIBYTE,
            (("table", str(table)),),
        )
        for table, mebibytes in rows
    ]


def _compactions(rows: list[_Row]) -> list[Statistic]:
    left = sum(max(0, int(total) - int(progress)) for _, progress, total in rows)
    return [
        Statistic("iotflow_cassandra_compactions", "Compactions under way", float(len(rows))),
        Statistic(
            "iotflow_cassandra_compaction_bytes", "What these still have to go through", float(left)
        ),
    ]


def _pools(rows: list[_Row]) -> list[Statistic]:
    return [
        Statistic(
            "iotflow_cassandra_tasks",
            "Tasks in a node's thread pools",
            float(count or 0),
            (("pool", str(name)), ("state", state)),
        )
        for name, *counts in rows
        if name in _POOLS_SHOWN
        for state, count in zip(("active", "pending", "blocked"), counts, strict=True)
    ]
