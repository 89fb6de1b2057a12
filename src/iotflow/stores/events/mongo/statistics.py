"""What MongoDB tells of itself: insertions, sizes, the time that calls took, replication."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from iotflow.stores.events.mongo.driver import Driver
from iotflow.stores.statistics import Statistic, each

_COLLECTIONS = ("events", "alerts")


async def statistics(driver: Driver) -> list[Statistic]:
    """Whatever the server knows and allows.

    Raises:
        StoreUnavailableError: it does not answer.
    """
    found = _of_server(await driver.told({"serverStatus": 1}))
    for name in _COLLECTIONS:
        found += _of_collection(name, await driver.told({"collStats": name}))
    return found + _of_replicas(await driver.told({"replSetGetStatus": 1}, database="admin"))


def _of_server(told: Mapping[str, Any]) -> list[Statistic]:
    operations = _numbers(told.get("opcounters"))
    connections = _numbers(told.get("connections"))
    latencies: Mapping[str, Any] = told.get("opLatencies") or {}
    found = [
        *each(
            "iotflow_mongodb_operations",
            "Operations of every client, by kind; insert is the rate of insertions",
            "kind",
            operations,
            is_counter=True,
        ),
        *each(
            "iotflow_mongodb_connections",
            "The server's connections",
            "state",
            {name: connections[name] for name in ("current", "available") if name in connections},
        ),
    ]
    for kind in ("reads", "writes", "commands"):
        of_kind = _numbers(latencies.get(kind))
        if {"ops", "latency"} <= of_kind.keys():
            labels = (("kind", kind),)
            found += [
                Statistic(
                    "iotflow_mongodb_operation_seconds",
                    "Time that operations took on the server, all together",
                    of_kind["latency"] / 1e6,
                    labels,
                    True,
                ),
                Statistic(
                    "iotflow_mongodb_timed_operations",
                    "Operations that this time was for",
                    of_kind["ops"],
                    labels,
                    True,
                ),
            ]
    return found


def _of_collection(name: str, told: Mapping[str, Any]) -> list[Statistic]:
    numbers = _numbers(told)
    sizes = {
        kind: numbers[key]
        for key, kind in (
            ("size", "documents"),
            ("storageSize", "storage"),
            ("totalIndexSize", "indexes"),
        )
        if key in numbers
    }
    found = [
        Statistic(
            "iotflow_mongodb_collection_bytes",
            "Size of a collection",
            size,
            (("collection", name), ("kind", kind)),
        )
        for kind, size in sizes.items()
    ]
    if "count" in numbers:
        found.append(
            Statistic(
                "iotflow_mongodb_documents",
                "Documents in a collection",
                numbers["count"],
                (("collection", name),),
            )
        )
    return found


def _of_replicas(told: Mapping[str, Any]) -> list[Statistic]:
    members: list[Mapping[str, Any]] = told.get("members") or []
    newest = [
        member["optimeDate"]
        for member in members
        if member.get("stateStr") == "PRIMARY" and isinstance(member.get("optimeDate"), datetime)
    ]
    if not newest:
        return []
    lags = {
        str(member["name"]): (newest[0] - member["optimeDate"]).total_seconds()
        for member in members
        if member.get("stateStr") == "SECONDARY" and isinstance(member.get("optimeDate"), datetime)
    }
    return list(
        each(
            "iotflow_mongodb_replication_lag_seconds",
            "How far a secondary is behind the primary",
            "member",
            lags,
        )
    )


def _numbers(told: Any) -> dict[str, float]:
    """Those members of a document that are numbers; MongoDB has several types of these."""
    if not isinstance(told, Mapping):
        return {}
    items: Mapping[str, Any] = told  # pyright: ignore[reportUnknownVariableType]
    return {
        name: float(value)
        for name, value in items.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
