"""The telemetry file's driver: what the rest of the adapter relies on."""

from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from iotflow.domain.points import Point, Submission, Value
from iotflow.stores.statement_sizes import MOST_ROWS
from iotflow.stores.telemetry.sqlite import SqliteTelemetryStore
from iotflow.stores.telemetry.sqlite.connections import Connections, connect, revision_of
from iotflow.stores.telemetry.sqlite.driver import open_file, roll_back
from iotflow.stores.telemetry.sqlite.readers import Readers
from iotflow.stores.telemetry.sqlite.upserts import write_submissions


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    store = SqliteTelemetryStore(tmp_path / "telemetry.db")
    await store.open()  # makes the tables
    await store.close()
    return tmp_path / "telemetry.db"


@pytest.fixture
def connections(path: Path) -> Generator[Connections]:
    connections = connect(path, 1)
    yield connections
    writing = (connections.writer, connections.checkpointer)
    for each in (*writing, connections.inline, *connections.readers):
        each.close()


def test_sqlite_is_one_whose_log_can_begin_anew_beside_a_copy() -> None:
    """https://sqlite.org/wal.html#walresetbug: before 3.51.3 that could lose commits."""
    assert tuple(map(int, apsw.sqlite_lib_version().split("."))) >= (3, 51, 3)


@pytest.mark.parametrize("points", [MOST_ROWS, 200])
@pytest.mark.parametrize("value", [1.5, 7])
def test_the_statements_of_a_full_group_are_cached(
    connections: Connections, value: Value, points: int
) -> None:
    """A statement that is too long for the driver's cache is prepared again each time."""
    writer = connections.writer
    assert isinstance(writer, apsw.Connection)
    for mark in (1, 2):
        written = [Point(mark * 10_000 + n, f"m{n}", value) for n in range(points)]
        group = [Submission(n, 1, tuple(written), mark) for n in range(1, 12)]
        write_submissions(writer, group)
    cache = writer.cache_stats()
    assert cache["too_big"] == 0
    assert cache["hits"] > 0


async def test_a_read_that_was_ended_does_not_hold_on_to_its_view(
    connections: Connections,
) -> None:
    readers = Readers(connections.inline, connections.readers, 1)
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
        " SELECT count(*) FROM n, points"
    )
    count = "SELECT count(*) FROM points"
    for mark in (1, 2, 3):
        write_submissions(connections.writer, [Submission(1, 1, (Point(mark, "t", 1.5),), mark)])
        assert readers.small(endless, (), int) is None
        assert readers.small(count, (), int) == [mark]
    await readers.close()


def test_rolling_back_is_nothing_where_nothing_was_begun(path: Path) -> None:
    with closing(open_file(path)) as connection:
        roll_back(connection)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO latest VALUES (1, 't', 1)")
        roll_back(connection)
        assert connection.execute("SELECT * FROM latest").fetchall() == []
        assert not connection.in_transaction


class TestRevision:
    def test_of_a_file_with_its_tables(self, path: Path) -> None:
        assert revision_of(path) == "0002_journal"

    def test_of_no_file(self, tmp_path: Path) -> None:
        assert revision_of(tmp_path / "nowhere" / "telemetry.db") is None
        assert not (tmp_path / "nowhere").exists()

    def test_of_an_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "telemetry.db").touch()
        assert revision_of(tmp_path / "telemetry.db") is None


def test_no_statement_is_prepared_again_for_other_values(connections: Connections) -> None:
    inline = connections.inline
    assert isinstance(inline, apsw.Connection)
    # Who prepares a statement asks what it may do.
    asked: list[int] = []

    def allowed(operation: int, *_: Any) -> int:
        asked.append(operation)
        return apsw.SQLITE_OK

    inline.set_authorizer(allowed)
    calls: list[int] = []
    for device_id, limit in ((1, 101), (2, 101), (3, 7)):
        inline.execute(
            "SELECT value FROM points WHERE device_id = ? LIMIT ?", (device_id, limit)
        ).fetchall()
        calls.append(len(asked))
    assert calls[0] > 0
    assert calls[1:] == [calls[0]] * 2
