"""The files that make Cassandra's tables."""

from typing import cast

import pytest

from iotflow.errors import StoreUnavailableError
from iotflow.stores.telemetry.cassandra.address import parse_address
from iotflow.stores.telemetry.cassandra.driver import Driver
from iotflow.stores.telemetry.cassandra.failures import SERVER_ERROR, TimedOutError, translated
from iotflow.stores.telemetry.cassandra.migrate import (
    Migrations,
    migration_files,
    statements_of,
)


def test_versions_begin_with_one_and_leave_no_gap() -> None:
    files = migration_files()
    assert sorted(files) == list(range(1, len(files) + 1))


def test_each_statement_can_be_run_again_and_names_its_keyspace() -> None:
    for text in migration_files().values():
        found = statements_of(text)
        assert found
        for statement in found:
            assert "IF NOT EXISTS {keyspace}." in statement


def test_statements_end_with_semicolons_and_comments_are_left_out() -> None:
    assert statements_of("-- one; two\nA\n  b;\n\n-- c\nD;\n") == ["A\n  b", "D"]
    assert statements_of("-- nothing\n\n") == []


class Row:
    def __init__(self, values: tuple[object, ...]) -> None:
        self._values = values

    def as_tuple(self) -> tuple[object, ...]:
        return self._values


class MakingNode:
    """A node on which another replica is just making the table: known there, and not yet open."""

    def __init__(self, failure: Exception) -> None:
        self._failure: Exception | None = failure
        self.asked: list[str] = []

    async def define(self, cql: str) -> list[Row]:
        self.asked.append(cql.split(" ", 2)[0])
        if cql.startswith("CREATE TABLE"):
            self._failure = None  # a node makes one table after the other
        if "FROM ks.iotflow_migrations" in cql:
            if self._failure is not None:
                raise translated(self._failure)
            return [Row((version,)) for version in migration_files()]
        if "system.local" in cql:
            return [Row(("one",))]
        return []


def migrations_on(node: MakingNode) -> Migrations:
    address = parse_address("cassandra://h/ks?local_dc=dc1")
    return Migrations(cast(Driver, node), address)


async def test_a_table_that_another_replica_is_making_is_waited_for() -> None:
    node = MakingNode(SERVER_ERROR("Unknown CF"))
    await migrations_on(node).apply()
    assert node.asked[:3] == ["SELECT", "CREATE", "CREATE"]
    assert node.asked.count("CREATE") == 2, "nothing else was to be made"


async def test_a_cluster_that_does_not_answer_is_not_asked_to_make_tables() -> None:
    node = MakingNode(TimedOutError())
    with pytest.raises(StoreUnavailableError):
        await migrations_on(node).apply()
    assert node.asked == ["SELECT"]
