"""The journal in front of the embedded store's points: durable at once, in its place later."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from types import NoneType
from typing import Any

import apsw
import pytest

from iotflow.domain.points import Point, Submission, Value
from iotflow.domain.times import TimeRange
from iotflow.stores.telemetry.protocol import HistoryQuery
from iotflow.stores.telemetry.sqlite import SqliteTelemetryStore
from iotflow.stores.telemetry.sqlite import journal as sqlite_journal
from iotflow.stores.telemetry.sqlite.connections import connect
from iotflow.stores.telemetry.sqlite.driver import Connection, Parameters, Rows
from iotflow.stores.telemetry.sqlite.journal import Journal
from tests.stored import stored

EVER = TimeRange(0, 10**12)
AFTER_S = 5.0
NORMAL, FULL = 1, 2  # of PRAGMA synchronous


def submission(mark: int, *values: Value, device_id: int = 1) -> Submission:
    points = tuple(Point(mark * 1_000 + n, "t", value) for n, value in enumerate(values or (1.5,)))
    return Submission(device_id, 1, points, mark)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    path = tmp_path / "telemetry.db"
    store = SqliteTelemetryStore(path)
    await store.open()  # makes the tables
    await store.close()
    return path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def connection(path: Path) -> Generator[Connection]:
    connections = connect(path, 1)
    yield connections.writer
    writing = (connections.writer, connections.checkpointer)
    for each in (*writing, connections.inline, *connections.readers):
        each.close()


class Watched:
    """A connection, what it was told, and how it waited for the disk at that time."""

    def __init__(self, connection: Connection) -> None:
        self.statements: list[tuple[str, int]] = []
        self._connection = connection

    def execute(self, statement: str, parameters: Parameters = ()) -> Rows:
        self.statements.append((statement, self._connection.pragma("synchronous")))
        return self._connection.execute(statement, parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def count(self, beginning: str) -> int:
        return sum(statement.startswith(beginning) for statement, _ in self.statements)


@pytest.fixture
def watched(connection: Connection) -> Watched:
    return Watched(connection)


@pytest.fixture
def journal(watched: Watched, clock: Clock) -> Journal:
    return Journal(watched, clock)


def count(connection: Connection, table: str) -> int:
    return len(connection.execute(f"SELECT * FROM {table}").fetchall())


async def journal_points(store: SqliteTelemetryStore) -> float:
    """Points that are durable, and not in their table yet."""
    (found,) = [
        each.value
        for each in await store.statistics()
        if each.name == "iotflow_sqlite_journal_points"
    ]
    return found


class TestMerging:
    def test_points_are_merged_after_a_while(
        self, journal: Journal, clock: Clock, connection: Connection
    ) -> None:
        assert journal.seconds_until_due() is None
        journal.append([submission(1), submission(2, device_id=2)])
        assert [journal.holds(device) for device in (1, 2, 3)] == [True, True, False]
        assert (count(connection, "journal"), count(connection, "points")) == (1, 0)
        assert journal.seconds_until_due() == AFTER_S
        clock.now_s = AFTER_S
        assert journal.seconds_until_due() == 0.0
        journal.merge_chunk(100)
        assert [journal.holds(device) for device in (1, 2)] == [False, False]
        assert (count(connection, "journal"), count(connection, "points")) == (0, 2)
        assert journal.seconds_until_due() is None

    def test_many_points_are_merged_at_once(self, journal: Journal) -> None:
        for mark in range(1, 1_000):
            journal.append([submission(mark, *[1.5] * 50)])
        assert journal.seconds_until_due() == AFTER_S
        journal.append([submission(1_000, *[1.5] * 50)])
        assert journal.seconds_until_due() == 0.0

    def test_a_chunk_is_bounded_and_ends_within_a_device(
        self, journal: Journal, connection: Connection
    ) -> None:
        journal.append([submission(mark, 1.5, 2.5) for mark in range(1, 11)])
        journal.merge_chunk(5)
        assert count(connection, "points") == 6
        assert journal.holds(1)
        assert count(connection, "journal") == 1
        journal.merge_chunk(100)
        assert count(connection, "points") == 20
        assert not journal.holds(1)

    def test_the_rows_of_what_came_meanwhile_stay(
        self, journal: Journal, connection: Connection
    ) -> None:
        journal.append([submission(mark) for mark in range(1, 11)])
        journal.merge_chunk(5)
        journal.append([submission(99, device_id=2)])
        journal.merge_chunk(100)
        assert journal.holds(2)
        assert count(connection, "journal") == 1

    def test_devices_that_are_read_are_merged_in_few_transactions(
        self,
        journal: Journal,
        watched: Watched,
        connection: Connection,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Each waits for the interpreter's lock some times."""
        journal.append([submission(n, 1.5, 2.5, device_id=n) for n in range(1, 41)])
        journal.merge_devices([*range(1, 21), 7, 99])
        assert watched.count("COMMIT") == 1
        assert [n for n in range(1, 41) if journal.holds(n)] == [*range(21, 41)]
        assert count(connection, "points") == 40
        monkeypatch.setattr(sqlite_journal, "_MOST_AT_ONCE_POINTS", 10)
        journal.merge_devices(range(21, 41))
        assert watched.count("COMMIT") == 1 + 4, "and yet a transaction is bounded"
        assert not any(map(journal.holds, range(1, 41)))
        assert count(connection, "points") == 80

    def test_merging_goes_twice_as_fast_as_collecting(
        self, journal: Journal, connection: Connection
    ) -> None:
        journal.append([submission(mark, *[1.5] * 50) for mark in range(1, 21)])
        journal.merge_chunk(1)
        merged = count(connection, "points")
        for mark in range(21, 41):
            journal.append([submission(mark, *[1.5] * 8, device_id=2)])
            journal.keep_pace()
        # Chunks of 128 points or more, which end with the submission that makes them full.
        assert merged + 2 * 20 * 8 - 128 <= count(connection, "points") <= merged + 2 * 20 * 8 + 150
        assert journal.holds(1)

    def test_merging_goes_on_whatever_else_the_writer_does(self, journal: Journal) -> None:
        journal.append([submission(mark, *[1.5] * 10) for mark in range(1, 21)])
        journal.merge_chunk(1)
        for _ in range(100):
            journal.keep_pace()
        assert not journal.holds(1)

    def test_a_long_journal_goes_piece_by_piece(
        self, journal: Journal, connection: Connection
    ) -> None:
        for mark in range(1, 251):
            journal.append([submission(mark)])
        journal.merge_chunk(1_000)
        journal.append([submission(251, device_id=2)])
        left = [count(connection, "journal")]
        while left[-1] > 1:
            journal.merge_chunk(1_000)
            left.append(count(connection, "journal"))
        assert left == [151, 51, 1]
        assert not journal.holds(1)
        assert journal.holds(2)

    def test_one_device_can_be_merged_alone(self, journal: Journal, connection: Connection) -> None:
        journal.append([submission(1), submission(2, device_id=2), submission(3)])
        journal.merge_devices([1, 7, 1])
        assert not journal.holds(1)
        assert journal.holds(2)
        assert count(connection, "points") == 2
        journal.merge_all(100)
        assert count(connection, "points") == 3

    def test_the_later_write_wins_in_whatever_order_they_are_merged(
        self, journal: Journal, connection: Connection
    ) -> None:
        def at_zero(mark: int, value: Value) -> Submission:
            return Submission(1, 1, (Point(0, "t", value),), mark)

        journal.append([at_zero(7, "late"), at_zero(6, 1.5)])
        journal.merge_chunk(0)  # a generation of its own
        journal.append([at_zero(5, 2.5)])
        journal.merge_all(100)
        assert connection.execute("SELECT text_value, ingested_at FROM points").fetchall() == [
            ("late", 7)
        ]


class TestPagefuls:
    """Submissions that fill a page by themselves."""

    PAGEFUL = [1.5] * 64

    def test_they_go_to_their_place_at_once(
        self, journal: Journal, watched: Watched, connection: Connection
    ) -> None:
        journal.append([submission(1), submission(2, *self.PAGEFUL, device_id=2)])
        assert watched.count("COMMIT") == 1
        assert [journal.holds(device) for device in (1, 2)] == [True, False]
        assert (count(connection, "journal"), count(connection, "points")) == (1, 64)
        assert connection.execute("SELECT * FROM latest").fetchall() == [(2, "t", 2_063)]
        assert journal.points == 1

    def test_those_of_many_devices_are_one_statement(
        self, journal: Journal, watched: Watched, connection: Connection
    ) -> None:
        """Each statement of a busy service waits for the interpreter's lock."""
        journal.append([submission(n, *[1.5] * 100, device_id=n) for n in range(1, 11)])
        assert watched.count("INSERT INTO points") == 1
        assert count(connection, "points") == 1_000

    def test_alone_they_leave_the_journal_empty(
        self, journal: Journal, connection: Connection
    ) -> None:
        journal.append([submission(2, *self.PAGEFUL)])
        assert journal.seconds_until_due() is None
        assert (count(connection, "journal"), count(connection, "points")) == (0, 64)

    def test_a_later_write_that_waits_still_wins(
        self, journal: Journal, connection: Connection
    ) -> None:
        for mark in (5, 9):
            journal.append([Submission(1, 1, (Point(7_000, "t", mark),), mark)])
        journal.append([submission(7, *self.PAGEFUL)])
        journal.merge_all(100)
        first = "SELECT int_value, ingested_at FROM points ORDER BY timestamp_ms LIMIT 1"
        assert connection.execute(first).fetchone() == (9, 9)

    async def test_one_that_cannot_be_stored_spoils_no_other(self, path: Path) -> None:
        store = SqliteTelemetryStore(path)
        await store.open()
        bad = submission(1, *self.PAGEFUL, float("nan"))
        others = [submission(2, device_id=2), submission(3, *self.PAGEFUL, device_id=3)]
        writes = [store.write(each) for each in (others[0], bad, others[1])]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert [type(each) for each in outcomes] == [NoneType, apsw.ConstraintError, NoneType]
        assert set(await store.latest([1, 2, 3])) == {2, 3}
        await store.close()


class TestDurability:
    def test_the_journal_is_flushed_and_merges_are_not(
        self, journal: Journal, watched: Watched, connection: Connection
    ) -> None:
        """Both settings are restored, also after a merge that failed."""
        for mark in (1, 2):
            journal.append([submission(mark)])
            journal.merge_all(100)
        told = [(each.split()[0], level) for each, level in watched.statements]
        durable = [each for each in told if each[0] in ("INSERT", "COMMIT") and each[1] == FULL]
        assert durable == [("INSERT", FULL)] * 2, "of the journal, each a transaction"
        assert told.count(("COMMIT", NORMAL)) == 4
        journal.append([submission(3)])
        connection.execute("ALTER TABLE points RENAME TO elsewhere")
        with pytest.raises(apsw.SQLError):
            journal.merge_all(100)
        assert connection.pragma("synchronous") == FULL
        assert journal.holds(1)
        assert count(connection, "journal") == 1
        connection.execute("ALTER TABLE elsewhere RENAME TO points")
        journal.merge_all(100)
        assert count(connection, "points") == 3

    def test_what_a_dead_process_left_is_merged(
        self, journal: Journal, connection: Connection
    ) -> None:
        values: list[Value] = [1.5, -0.0, 2**63 - 1, True, "text", 3]
        journal.append([submission(1, *values), submission(2, device_id=2)])
        journal.append([submission(3)])
        journal.merge_devices([2])
        again = Journal(connection)
        assert [again.holds(device) for device in (1, 2)] == [True, True]
        assert again.seconds_until_due() == 0.0
        again.merge_all(100)
        assert count(connection, "points") == 8
        assert count(connection, "journal") == 0
        kinds = connection.execute("SELECT value_type FROM points WHERE timestamp_ms < 2000")
        assert [kind for (kind,) in kinds] == [0, 0, 1, 2, 3, 1]

    def test_one_that_can_never_be_stored_holds_up_no_other(
        self, journal: Journal, connection: Connection
    ) -> None:
        # Nothing lets such a value in; if something did, the others would still be safe.
        journal.append([submission(1), submission(2, float("nan")), submission(3)])
        journal.merge_all(100)
        assert count(connection, "points") == 2
        assert count(connection, "journal") == 0


class TestStore:
    @pytest.fixture
    async def store(self, path: Path) -> AsyncGenerator[SqliteTelemetryStore]:
        store = SqliteTelemetryStore(path)
        await store.open()
        yield store
        await store.close()

    async def test_a_delete_leaves_nothing_that_could_come_back(
        self, store: SqliteTelemetryStore, path: Path
    ) -> None:
        await store.write(submission(1))
        await store.write(submission(2, device_id=2))
        assert await store.delete_range(1, EVER, 10) == 1
        assert stored(path, "SELECT * FROM journal") == []
        assert stored(path, "SELECT device_id FROM points") == [(2,)]
        await store.close()
        await store.open()
        assert (await store.history(HistoryQuery(1, EVER, 10))).items == []
        assert list(await store.latest([1, 2])) == [2]

    async def test_closing_leaves_nothing_in_the_journal(
        self, store: SqliteTelemetryStore, path: Path
    ) -> None:
        await store.write(submission(1))
        await store.close()
        assert stored(path, "SELECT * FROM journal") == []
        assert len(stored(path, "SELECT * FROM points")) == 1
        await store.open()

    async def test_more_than_is_to_be_collected_is_merged_before_more_is_taken(
        self, store: SqliteTelemetryStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_journal, "_MAX_POINTS", 100)
        waiting: list[float] = []
        for device in range(1, 11):
            await store.write(submission(device, *[1.5] * 50, device_id=device))
            waiting.append(await journal_points(store))
        assert waiting == [50, 100, 50, 100, 50, 100, 50, 100, 50, 100]
        for device in range(1, 11):
            page = await store.history(HistoryQuery(device, EVER, 100))
            assert len(page.items) == 50

    async def test_a_device_whose_points_wait_is_listed(self, store: SqliteTelemetryStore) -> None:
        await store.write(submission(1, device_id=7))
        assert (await store.devices(None, 10)).device_ids == [7]
