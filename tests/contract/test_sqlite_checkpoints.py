"""The embedded store's write-ahead log: copied beside the writer, and never long."""

import asyncio
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from iotflow.domain.points import Point, Submission
from iotflow.stores.telemetry.sqlite import SqliteTelemetryStore
from iotflow.stores.telemetry.sqlite.checkpoints import PAGES, Checkpointer
from iotflow.stores.telemetry.sqlite.driver import Connection, open_file

PAGE_BYTES = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "telemetry.db"


@pytest.fixture
def writer(path: Path) -> Generator[Connection]:
    with closing(open_file(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("CREATE TABLE filled (page BLOB)")
        yield connection


@pytest.fixture
def checkpointer(writer: Connection, path: Path) -> Generator[Checkpointer]:
    checkpointer = Checkpointer(open_file(path), writer)
    yield checkpointer
    checkpointer.close()


def fill(connection: Connection, pages: int) -> None:
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        " INSERT INTO filled SELECT zeroblob(3500) FROM n",
        (pages,),
    )


def pages_in_file(path: Path) -> int:
    return path.stat().st_size // PAGE_BYTES


def pages_in_log(path: Path) -> int:
    """What the log has held at most: SQLite writes it anew from its beginning, but keeps it."""
    return path.with_name(path.name + "-wal").stat().st_size // PAGE_BYTES


def wait_for_pages(path: Path, pages: int, meanwhile: Callable[[], None] = lambda: None) -> None:
    ends_s = time.monotonic() + 10
    while pages_in_file(path) < pages:
        assert time.monotonic() < ends_s, "the log was not copied"
        meanwhile()
        time.sleep(0.005)


def test_a_long_log_is_copied_while_the_writer_does_nothing(
    checkpointer: Checkpointer, writer: Connection, path: Path
) -> None:
    fill(writer, PAGES)
    checkpointer.wrote(PAGES - 1)
    checkpointer.take_turn()
    time.sleep(0.05)
    assert pages_in_file(path) < 10
    checkpointer.wrote(1)
    checkpointer.take_turn()
    wait_for_pages(path, PAGES)


def test_the_writer_copies_what_came_meanwhile_and_the_log_begins_anew(
    checkpointer: Checkpointer, writer: Connection, path: Path
) -> None:
    for _ in range(5):
        before = pages_in_file(path)
        fill(writer, PAGES)
        checkpointer.wrote(PAGES)
        checkpointer.take_turn()
        wait_for_pages(path, before + PAGES - 10)
        fill(writer, 100)
        wait_for_pages(path, before + PAGES + 90, checkpointer.take_turn)
    assert pages_in_log(path) < 2 * PAGES


def test_a_reader_holds_up_neither_the_writer_nor_the_next_copy(
    checkpointer: Checkpointer, writer: Connection, path: Path
) -> None:
    with closing(open_file(path)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM filled").fetchone() == (0,)
        fill(writer, PAGES)
        checkpointer.wrote(PAGES)
        checkpointer.take_turn()
        fill(writer, 1)
        assert reader.execute("SELECT count(*) FROM filled").fetchone() == (0,)
    checkpointer.wrote(PAGES)
    wait_for_pages(path, PAGES, checkpointer.take_turn)
    assert writer.execute("SELECT count(*) FROM filled").fetchone() == (PAGES + 1,)


def test_a_copy_that_fails_is_told_and_tried_again(writer: Connection, path: Path) -> None:
    beside = open_file(path)
    checkpointer = Checkpointer(beside, writer)
    beside.close()
    for _ in range(2):
        with capture_logs() as logs:
            checkpointer.wrote(PAGES)
            ends_s = time.monotonic() + 10
            while not logs and time.monotonic() < ends_s:
                checkpointer.take_turn()
                time.sleep(0.005)
        assert [log["event"] for log in logs] == ["telemetry_not_checkpointed"]
    fill(writer, 1)
    assert writer.execute("SELECT count(*) FROM filled").fetchone() == (1,)
    checkpointer.close()


async def test_the_store_has_its_log_copied_long_before_sqlite_would(path: Path) -> None:
    store = SqliteTelemetryStore(path)
    await store.open()
    points = tuple(Point(at_ms, "temperature", 20.5) for at_ms in range(64))
    writes = [store.write(Submission(device, 1, points, device)) for device in range(1, 2 * PAGES)]
    await asyncio.gather(*writes)
    assert pages_in_log(path) < 8_000
    await asyncio.to_thread(wait_for_pages, path, PAGES // 5)
    await store.close()
