"""What the embedded telemetry store promises beyond the contract: groups, isolation, draining."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from iotflow.domain.points import Point, Submission, Value
from iotflow.domain.times import TimeRange
from iotflow.errors import OverloadedError, StoreUnavailableError
from iotflow.stores.telemetry.protocol import HistoryQuery
from iotflow.stores.telemetry.sqlite import SqliteTelemetryStore
from iotflow.stores.telemetry.sqlite.driver import open_file
from tests.stored import stored

ALL = TimeRange(0, 10**9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "telemetry.db"


@pytest.fixture
async def store(path: Path) -> AsyncGenerator[SqliteTelemetryStore]:
    store = SqliteTelemetryStore(path)
    await store.open()
    yield store
    await store.close()


def submission(mark: int, value: Value = 1, *, device_id: int = 1, points: int = 1) -> Submission:
    made = tuple(Point(mark * 1_000 + index, "t", value) for index in range(points))
    return Submission(device_id, 1, made, mark)


async def times(store: SqliteTelemetryStore, device_id: int = 1) -> list[int]:
    page = await store.history(HistoryQuery(device_id, ALL, 10_000))
    return sorted(point.timestamp_ms for point in page.items)


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Somebody else holds the write lock."""
    with closing(open_file(path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


async def begun(*calls: Any) -> list[asyncio.Task[Any]]:
    """Tasks that have been started, so that what they ask for is queued."""
    tasks = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(0)
    return tasks


class TestGroupCommit:
    async def test_many_writes_share_few_commits(self, store: SqliteTelemetryStore) -> None:
        await asyncio.gather(*(store.write(submission(mark)) for mark in range(1, 501)))
        assert store.submissions_committed == 500
        assert 1 <= store.groups_committed <= 100
        assert store.queued_points == 0
        assert len(await times(store)) == 500

    async def test_what_waits_for_a_lock_becomes_one_group(
        self, store: SqliteTelemetryStore, path: Path
    ) -> None:
        with locked(path):
            tasks = await begun(store.write(submission(1)))
            await asyncio.sleep(0.02)
            tasks += await begun(*(store.write(submission(mark)) for mark in range(2, 102)))
            assert store.queued_points == 101
        await asyncio.gather(*tasks)
        assert store.submissions_committed == 101
        assert store.groups_committed == 2

    async def test_an_answer_comes_after_the_commit(
        self, store: SqliteTelemetryStore, path: Path
    ) -> None:
        with locked(path):
            (task,) = await begun(store.write(submission(1)))
            await asyncio.sleep(0.02)
            assert not task.done()
        await task
        assert stored(path, "SELECT count(*) FROM journal") == [(1,)]

    async def test_readers_in_between_split_no_group(
        self, store: SqliteTelemetryStore, path: Path
    ) -> None:
        await asyncio.gather(*(store.write(submission(n, device_id=n)) for n in range(1, 51)))
        before = store.groups_committed
        with locked(path):
            tasks = await begun(store.write(submission(51)))
            await asyncio.sleep(0.02)
            for n in range(1, 51):
                tasks += await begun(store.write(submission(100 + n)), times(store, n))
        found = await asyncio.wait_for(asyncio.gather(*tasks), 10)
        assert all(n * 1_000 in read for n, read in enumerate(found[2::2], 1))
        assert store.groups_committed == before + 2

    async def test_a_cancelled_writer_spoils_nothing(
        self, store: SqliteTelemetryStore, path: Path
    ) -> None:
        with locked(path):
            tasks = await begun(*(store.write(submission(mark)) for mark in range(1, 11)))
            tasks[3].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(each, asyncio.CancelledError) for each in done].count(True) == 1
        assert store.queued_points == 0
        await store.write(submission(11))
        assert len(await times(store)) in (10, 11)


class TestIsolation:
    # Half of a surrogate pair cannot be written as UTF-8.
    BAD = "\ud800"

    async def test_a_bad_submission_of_a_group_spoils_no_other(
        self, store: SqliteTelemetryStore, path: Path
    ) -> None:
        values: list[Value] = [1] * 20
        values[7] = values[13] = self.BAD
        with locked(path):
            tasks = await begun(store.write(submission(100)))
            await asyncio.sleep(0.02)
            tasks += await begun(
                *(store.write(submission(mark, value)) for mark, value in enumerate(values))
            )
        done = await asyncio.gather(*tasks, return_exceptions=True)
        failed = [index - 1 for index, each in enumerate(done) if each is not None]
        assert failed == [7, 13]
        assert all(isinstance(done[index + 1], UnicodeEncodeError) for index in failed)
        expected = [mark * 1_000 for mark in [*range(20), 100] if mark not in failed]
        assert await times(store) == expected
        assert store.queued_points == 0

    async def test_a_bad_submission_is_stored_in_no_part(self, store: SqliteTelemetryStore) -> None:
        points = (Point(1, "good", 1), Point(1, "bad", self.BAD))
        with pytest.raises(UnicodeEncodeError):
            await store.write(Submission(1, 1, points, 1))
        assert await times(store) == []
        assert await store.latest([1]) == {}

    async def test_the_writer_lives_on(self, store: SqliteTelemetryStore) -> None:
        for mark in range(5):
            with pytest.raises(UnicodeEncodeError):
                await store.write(submission(mark, self.BAD))
            await store.write(submission(mark))
        await store.ping()
        assert len(await times(store)) == 5


class TestBounds:
    async def test_too_many_waiting_points_are_refused_and_not_begun(self, path: Path) -> None:
        store = SqliteTelemetryStore(path, max_queued_points=10)
        await store.open()
        try:
            with locked(path):
                tasks = await begun(store.write(submission(1, points=8)))
                with pytest.raises(OverloadedError):
                    await store.write(submission(2, points=3))
                tasks += await begun(store.write(submission(3, points=2)))
            await asyncio.gather(*tasks)
            assert len(await times(store)) == 10
            await store.write(submission(2, points=3))
            assert len(await times(store)) == 13
        finally:
            await store.close()

    async def test_one_alone_may_be_larger_than_the_bound(self, path: Path) -> None:
        store = SqliteTelemetryStore(path, max_queued_points=10)
        await store.open()
        try:
            await store.write(submission(1, points=50))
            assert len(await times(store)) == 50
        finally:
            await store.close()

    async def test_writes_go_on_between_the_chunks_of_a_delete(
        self, store: SqliteTelemetryStore
    ) -> None:
        large = tuple(Point(index, "t", 1) for index in range(45_000))
        await store.write(Submission(1, 1, large, 1))
        ended: list[str] = []

        async def delete() -> None:
            assert await store.delete_range(1, TimeRange(0, 45_000), 5) == 45_000
            ended.append("delete")

        async def write() -> None:
            await store.write(submission(60, device_id=2))
            ended.append("write")

        await asyncio.gather(delete(), write())
        assert ended == ["write", "delete"]
        assert await times(store) == []


class TestClosing:
    async def test_what_is_queued_is_written(self, path: Path) -> None:
        store = SqliteTelemetryStore(path)
        await store.open()
        tasks = await begun(*(store.write(submission(mark)) for mark in range(1, 301)))
        await store.close()
        await asyncio.gather(*tasks)
        again = SqliteTelemetryStore(path)
        await again.open()
        assert len(await times(again)) == 300
        await again.close()

    async def test_what_cannot_be_written_in_time_is_refused(self, path: Path) -> None:
        store = SqliteTelemetryStore(path, drain_s=0.0)
        await store.open()
        marks = range(1, 191)
        tasks = await begun(*(store.write(submission(mark, points=1_000)) for mark in marks))
        await store.close()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(each) for each in done} <= {type(None), StoreUnavailableError}
        assert any(each is not None for each in done)
        again = SqliteTelemetryStore(path)
        await again.open()
        query = HistoryQuery(1, TimeRange(0, 10**9), 200_000)
        kept = {point.timestamp_ms // 1_000 for point in (await again.history(query)).items}
        assert kept == {mark for mark, each in zip(marks, done, strict=True) if each is None}
        await again.close()

    async def test_it_can_be_opened_again(self, store: SqliteTelemetryStore) -> None:
        await store.write(submission(1))
        await store.close()
        await store.open()
        await store.write(submission(2))
        assert await times(store) == [1_000, 2_000]

    async def test_a_file_that_is_no_database_is_unavailable(self, path: Path) -> None:
        await asyncio.to_thread(path.write_bytes, b"no database at all" * 100)
        store = SqliteTelemetryStore(path)
        with pytest.raises(StoreUnavailableError):
            await store.open()
        await store.close()


@pytest.fixture
def text_file(path: Path) -> Path:
    path.write_text("a text, and a long one: " * 1_000)
    return path


async def test_a_file_that_is_no_database_is_unavailable(text_file: Path) -> None:
    with pytest.raises(StoreUnavailableError):
        await SqliteTelemetryStore(text_file).open()


async def test_a_file_that_cannot_be_there_is_unavailable(text_file: Path) -> None:
    with pytest.raises(StoreUnavailableError):
        await SqliteTelemetryStore(text_file / "telemetry.db").open()
