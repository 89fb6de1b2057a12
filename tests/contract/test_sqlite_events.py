"""The event log on SQLite: its indexes follow the log in steps, and nobody sees where they are."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import Connection, Engine, event

from iotflow.domain.events import TELEMETRY_SUBMITTED, Event, submission_id
from iotflow.domain.times import MAX_TIMESTAMP_MS, TimeRange
from iotflow.stores.events.protocol import EventPageKey, EventQuery
from iotflow.stores.events.sql import SqlEventStore
from iotflow.stores.events.sql.sqlite import SqliteLayout
from iotflow.stores.migrations import alembic_config
from iotflow.stores.sql import create_engine

T0_US = 1_767_225_600_000_000
EVER = TimeRange(0, MAX_TIMESTAMP_MS + 1)
USER = 1
STEPS = 10


def submitted(number: int, device: int, user: int = USER) -> Event:
    mark = T0_US + number * 1_000
    return Event(
        submission_id(mark, device),
        TELEMETRY_SUBMITTED,
        mark // 1_000,
        user,
        device,
        {"measurements": ["a"], "count": 1},
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
async def store(path: Path) -> SqlEventStore:
    store = SqlEventStore(f"sqlite:///{path}")
    await store.open()
    return store


@pytest.fixture
def tail_of_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iotflow.stores.events.sql.sqlite._LONGEST_TAIL", 10)


def numbers(path: Path, statement: str) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [number for (number,) in connection.execute(statement)]


async def test_every_number_of_events_is_appended_and_counted_once(
    path: Path, store: SqlEventStore
) -> None:
    appended = [
        await store.append([submitted(n, many) for n in range(many)]) for many in (1, 9, 33)
    ]
    assert appended == [1, 9, 33]
    assert numbers(path, "SELECT count(*) FROM events") == [43]
    await store.close()


async def test_batches_of_all_sizes_share_a_few_statements(store: SqlEventStore) -> None:
    inserts: set[str] = set()

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO events "):
            inserts.add(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        for many in range(1, 101):
            await store.append([submitted(number, many) for number in range(many)])
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert 1 < len(inserts) <= 25
    await store.close()


def indexed(path: Path) -> list[int]:
    """How many events each index has, that of users and that of devices."""
    return numbers(
        path,
        "SELECT count(*) FROM events_by_user UNION ALL SELECT count(*) FROM events_by_device",
    )


@pytest.mark.usefixtures("tail_of_ten")
async def test_the_indexes_take_the_tail_once_it_is_long(store: SqlEventStore, path: Path) -> None:
    without_owner = Event("odd", "service.started", 1, None, None, {})
    await store.append([without_owner, *[submitted(n, n % 3) for n in range(9)]])
    assert indexed(path) == [0, 0]
    await store.append([submitted(9, 1)])
    assert indexed(path) == [10, 10]
    await store.append([submitted(10, 1)])
    assert indexed(path) == [10, 10]
    assert numbers(path, "SELECT through FROM events_indexed") == [11]
    await store.close()


@pytest.mark.usefixtures("tail_of_ten")
async def test_a_page_comes_from_the_index_and_the_tail(store: SqlEventStore) -> None:
    """Late ones, which a replay brings, are in the tail and belong among those of the index."""
    await store.append([submitted(n, 1) for n in range(0, 24, 2)])
    await store.append([submitted(n, 1) for n in (3, 9, 30)])
    expected = [submitted(n, 1) for n in (30, 22, 20, 18, 16, 14, 12, 10, 9, 8, 6, 4, 3, 2, 0)]
    for filters in ({"device_id": 1}, {"user_id": USER}, {"user_id": USER, "device_id": 1}):
        found: list[Event] = []
        after: EventPageKey | None = None
        more = True
        while more:
            page, more = await store.query(EventQuery(EVER, 4, after=after, **filters))
            found += page
            after = EventPageKey(page[-1].timestamp_ms, page[-1].id)
        assert found == expected
    await store.close()


@pytest.mark.usefixtures("tail_of_ten")
async def test_what_is_deleted_by_hand_is_in_no_index_either(
    store: SqlEventStore, path: Path
) -> None:
    await store.append([submitted(n, n % 2) for n in range(12)])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM events WHERE device_id = 1")
    assert indexed(path) == [6, 6]
    assert await store.query(EventQuery(EVER, 10, device_id=1)) == ([], False)
    await store.close()


@pytest.mark.usefixtures("tail_of_ten")
async def test_after_the_newest_were_deleted_new_ones_are_indexed(
    store: SqlEventStore, path: Path
) -> None:
    """A place in the log that was given twice would be taken for one that is indexed already."""
    await store.append([submitted(n, 1) for n in range(12)])
    assert await store.delete_device(1) == 12
    again = [submitted(n, 2) for n in range(20, 26)]
    await store.append(again)
    assert (await store.query(EventQuery(EVER, 10, device_id=2)))[0] == again[::-1]
    await store.append([submitted(n, 2) for n in range(30, 42)])
    assert indexed(path) == [18, 18]
    await store.close()


async def steps(path: Path, query: EventQuery) -> int:
    """Instructions of SQLite's virtual machine that a page takes, rounded to STEPS."""
    statement = SqliteLayout().page(query).compile(compile_kwargs={"literal_binds": True})
    count = 0

    def tick() -> None:
        nonlocal count
        count += 1

    with closing(sqlite3.connect(path)) as connection:
        connection.set_progress_handler(tick, STEPS)
        assert connection.execute(str(statement)).fetchall()
    return count * STEPS


async def test_a_page_costs_the_same_among_many(store: SqlEventStore, path: Path) -> None:
    async def log(begin: int, end: int) -> None:
        for first in range(begin, end, 1_000):
            await store.append([submitted(n, n % 100) for n in range(first, first + 1_000)])
        await store.delete_device(100)  # nothing, but that all is indexed then

    rare = Event("rare", "user.signed_in", T0_US // 1_000, USER, None, {})
    await store.append([rare])
    queries = [
        EventQuery(EVER, 50),
        EventQuery(EVER, 50, device_id=7),
        EventQuery(EVER, 50, user_id=USER),
        EventQuery(EVER, 50, user_id=USER, device_id=7),
        EventQuery(EVER, 50, user_id=USER, event_type=TELEMETRY_SUBMITTED),
        EventQuery(EVER, 50, user_id=USER, event_type="user.signed_in"),
        EventQuery(EVER, 50, device_id=7, after=EventPageKey(T0_US // 1_000 + 15_000, "")),
    ]
    await log(0, 21_000)
    few = [await steps(path, query) for query in queries]
    await log(21_000, 84_000)
    many = [await steps(path, query) for query in queries]
    assert many == [pytest.approx(cost, rel=0.05, abs=STEPS) for cost in few]
    await store.close()


async def test_a_log_of_before_is_taken_over(path: Path) -> None:
    """Submissions too: their ids were the other way round."""

    def as_before(connection: Connection) -> None:
        config = alembic_config("events")
        config.attributes.update(connection=connection, schema=None)
        command.upgrade(config, "0001_events")
        connection.exec_driver_sql(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)",
            [
                ("7-1767225600000000", TELEMETRY_SUBMITTED, T0_US // 1_000, 1, 7, '{"count":1}'),
                ("a-1", "user.signed_in", T0_US // 1_000, 1, None, "{}"),
            ],
        )

    engine = create_engine(f"sqlite:///{path}")
    async with engine.begin() as connection:
        await connection.run_sync(as_before)
    await engine.dispose()
    store = SqlEventStore(f"sqlite:///{path}")
    await store.open()
    assert indexed(path) == [2, 1]
    assert numbers(path, "SELECT through FROM events_indexed") == [2]
    again = Event(submission_id(T0_US, 7), TELEMETRY_SUBMITTED, T0_US // 1_000, 1, 7, {})
    assert await store.append([again]) == 0
    found, _ = await store.query(EventQuery(EVER, 10, user_id=1))
    assert [(event.id, event.details) for event in found] == [
        ("a-1", {}),
        (submission_id(T0_US, 7), {"count": 1}),
    ]
    await store.close()
