"""The driver of SQLAlchemy's SQLite files: what is brief at once, everything else in a thread."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from iotflow.stores.sql import Database, create_engine, reading
from iotflow.stores.sqlite_connection import BRIEF_STEPS, Connection, connect

UPTO = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})"
ENDLESS = f"SELECT * FROM ({UPTO.format(10**12)} SELECT count(*) FROM n)"
INSERT = "INSERT INTO things VALUES (?, ?)"

things = Table("things", MetaData(), Column("id", Integer, primary_key=True), Column("name", Text))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "some.db"
    with closing(sqlite3.connect(path)) as made:
        made.execute("PRAGMA journal_mode=WAL")
        made.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
    return path


@pytest.fixture
async def connection(path: Path) -> AsyncGenerator[Connection]:
    connection = await connect(path)
    yield connection
    await connection.close()


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Somebody else holds the write lock."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def at_once(call: Any) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        call.send(None)
    except StopIteration as ended:
        return ended.value
    call.close()
    raise AssertionError("it waits")


async def ticks(task: asyncio.Task[Any]) -> int:
    """How often the event loop had a turn until a task was done."""
    turns = 0
    while not task.done():
        turns += 1
        await asyncio.sleep(0.001)
    return turns


class TestAtOnce:
    async def test_a_brief_select(self, connection: Connection) -> None:
        assert at_once(connection.execute("SELECT 1, 'a' AS name")).rows == [(1, "a")]
        cursor = connection.cursor()
        assert at_once(cursor.execute("\n  select ? AS name", ("b",))) is None
        assert [name for name, *_ in cursor.description] == ["name"]
        assert at_once(cursor.fetchall()) == [("b",)]
        assert at_once(cursor.close()) is None

    async def test_the_end_of_what_was_not_begun(self, connection: Connection) -> None:
        assert at_once(connection.rollback()) is None
        assert at_once(connection.commit()) is None

    async def test_a_select_of_what_this_transaction_wrote(self, connection: Connection) -> None:
        await connection.execute("BEGIN IMMEDIATE")
        await connection.execute(INSERT, (1, "one"))
        assert at_once(connection.execute("SELECT name FROM things")).rows == [("one",)]
        await connection.rollback()
        assert at_once(connection.execute("SELECT name FROM things")).rows == []

    async def test_an_error_is_the_driver_s(self, connection: Connection) -> None:
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            at_once(connection.execute("SELECT * FROM nowhere"))


class TestInAThread:
    async def test_a_select_that_is_not_brief(self, connection: Connection) -> None:
        rows = BRIEF_STEPS * 10
        statement = f"SELECT * FROM ({UPTO.format(rows)} SELECT count(*) FROM n)"
        task = asyncio.create_task(connection.execute(statement))
        assert await ticks(task) > 5
        assert task.result().rows == [(rows,)]

    async def test_many_rows_are_all_there(self, connection: Connection) -> None:
        rows = BRIEF_STEPS
        found = await connection.execute(f"SELECT * FROM ({UPTO.format(rows)} SELECT * FROM n)")
        assert [number for (number,) in found.rows] == [*range(1, rows + 1)]

    @pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "INSERT INTO things VALUES (1, '')"])
    async def test_whatever_waits_for_a_lock(
        self, connection: Connection, path: Path, statement: str
    ) -> None:
        with locked(path):
            task = asyncio.create_task(connection.execute(statement))
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert not task.done()
        await asyncio.wait_for(task, 10)

    async def test_what_a_cancelled_caller_left_comes_first(
        self, connection: Connection, path: Path
    ) -> None:
        with locked(path):
            # The second waits for the first, and does not become the one that is waited for.
            for number in (1, 2):
                task = asyncio.create_task(connection.execute(INSERT, (number, "one")))
                await asyncio.sleep(0.02)
                task.cancel()
                await asyncio.wait([task])
            later = asyncio.create_task(connection.execute("SELECT name FROM things"))
            await asyncio.sleep(0.02)
            assert not later.done()
        assert (await asyncio.wait_for(later, 10)).rows == [("one",)]

    @pytest.mark.parametrize("end", [Connection.close, Connection.stop])
    async def test_closing_ends_what_nobody_waits_for(
        self, connection: Connection, path: Path, end: Any
    ) -> None:
        await connection.execute(INSERT, (1, "one"))
        task = asyncio.create_task(connection.execute(ENDLESS))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait([task])
        ended = end(connection)
        if ended is not None:
            await asyncio.wait_for(ended, 10)
        for _ in range(1_000):
            if not path.with_name("some.db-wal").exists():  # the log has been copied
                break
            await asyncio.sleep(0.01)
        else:
            raise AssertionError("it was not closed")
        for statement in ("SELECT 1", "BEGIN IMMEDIATE"):
            with pytest.raises(sqlite3.OperationalError, match="connection closed"):
                await connection.execute(statement)


class TestSqlalchemy:
    @pytest.fixture
    async def engine(self, path: Path) -> AsyncGenerator[AsyncEngine]:
        engine = create_engine(f"sqlite:///{path}")
        yield engine
        await engine.dispose()

    async def test_what_is_written_is_told_and_found(self, engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            made = await connection.execute(insert(things), {"name": "one"})
            assert made.inserted_primary_key == (1,)
            await connection.execute(insert(things), [{"name": "two"}, {"name": "three"}])
            returned = await connection.execute(insert(things).returning(things), {"name": "four"})
            assert returned.all() == [(4, "four")]
            changed = await connection.execute(
                update(things).where(things.c.id > 2).values(name="more")
            )
            assert changed.rowcount == 2
        async with reading(engine).connect() as connection:
            found = await connection.execute(select(things).order_by(things.c.id))
            assert [row.name for row in found] == ["one", "two", "more", "more"]

    async def test_an_error_takes_the_transaction_back(self, engine: AsyncEngine) -> None:
        async def write_twice() -> None:
            async with engine.begin() as connection:
                await connection.execute(insert(things), {"name": "one"})
                await connection.execute(insert(things), {"id": 1, "name": "again"})

        with pytest.raises(IntegrityError):
            await write_twice()
        async with reading(engine).connect() as connection:
            assert (await connection.execute(select(things))).all() == []

    async def test_a_cancelled_transaction_leaves_nothing_and_no_lock(
        self, engine: AsyncEngine
    ) -> None:
        written = asyncio.Event()

        async def write() -> None:
            async with engine.begin() as connection:
                await connection.execute(insert(things), {"name": "one"})
                written.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(write())
        await written.wait()
        task.cancel()
        await asyncio.wait([task])
        async with asyncio.timeout(10), engine.begin() as connection:
            await connection.execute(insert(things), {"name": "two"})
            assert (await connection.execute(select(things.c.name))).all() == [("two",)]


async def test_a_brief_read_keeps_its_connection_from_nobody(tmp_path: Path) -> None:
    """It has its answer, and has given the connection back, before others have a turn."""
    database = Database("events", f"sqlite:///{tmp_path}/events.db")
    await database.open()

    async def read() -> Any:
        async with database.reading() as connection:
            return (await connection.execute(text("SELECT count(*) FROM events"))).scalar()

    await read()  # opens a connection
    for _ in range(10):
        assert at_once(read()) == 0
    await database.close()
