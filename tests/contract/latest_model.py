"""A telemetry store of one device and all that may be under way between it and a cache.

Every operation that spans both (a submission, a range delete, a fill) is cut into the steps
between which anything else may happen, on this replica or another.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from iotflow.domain.points import LatestPoint, Point, Submission
from tests.contract.cache_adapters import CacheHarness


@dataclass
class Deletion:
    start_ms: int
    end_ms: int
    written_us: int

    def covers(self, timestamp_ms: int, written_us: int) -> bool:
        return self.start_ms <= timestamp_ms < self.end_ms and written_us < self.written_us


@dataclass
class LatestModel:
    """`shadows` is whether a delete also hides what arrives after it with an older mark."""

    cache: CacheHarness
    device_id: int
    shadows: bool
    rows: dict[tuple[int, str], LatestPoint] = field(default_factory=dict)
    deletions: list[Deletion] = field(default_factory=list)
    recorded: set[int] = field(default_factory=set)
    marks: set[int] = field(default_factory=set)
    first_mark: int = 0
    to_store: list[Submission] = field(default_factory=list)
    to_record: list[Submission] = field(default_factory=list)
    to_delete: list[Deletion] = field(default_factory=list)
    to_drop: list[Deletion] = field(default_factory=list)
    to_read: list[int] = field(default_factory=list)
    to_fill: list[tuple[int, list[LatestPoint]]] = field(default_factory=list)

    async def step(self, name: str, which: int, points: Sequence[tuple[int, str]]) -> None:
        await getattr(self, name)(which, points)

    def mark(self, which: int) -> int:
        """Replicas' clocks differ: marks do not rise in the order of events."""
        mark = self.first_mark + which
        while mark in self.marks:
            mark += 1
        self.marks.add(mark)
        return mark

    async def submit(self, which: int, points: Sequence[tuple[int, str]]) -> None:
        mark = self.mark(which)
        made = tuple(Point(timestamp_ms, name, mark) for timestamp_ms, name in points)
        self.to_store.append(Submission(self.device_id, 1, made, mark))

    async def store(self, which: int, _: object) -> None:
        if not self.to_store:
            return
        submission = self.to_store.pop(which % len(self.to_store))
        written_us = submission.written_us
        for point in submission.points:
            hidden = any(d.covers(point.timestamp_ms, written_us) for d in self.deletions)
            row = self.rows.get((point.timestamp_ms, point.measurement))
            if (hidden and self.shadows) or (row is not None and row.written_us > written_us):
                continue
            self.rows[point.timestamp_ms, point.measurement] = LatestPoint(
                point.timestamp_ms, point.measurement, point.value, point.unit, written_us
            )
        self.to_record.append(submission)

    async def record(self, which: int, _: object) -> None:
        if self.to_record:
            submission = self.to_record.pop(which % len(self.to_record))
            await self.cache.store.record(submission, ())
            self.recorded.add(submission.written_us)

    async def ask_delete(self, which: int, points: Sequence[tuple[int, str]]) -> None:
        times = [timestamp_ms for timestamp_ms, _ in points]
        self.to_delete.append(Deletion(min(times), max(times) + 1, self.mark(which)))

    async def delete(self, which: int, _: object) -> None:
        if self.to_delete:
            deletion = self.to_delete.pop(which % len(self.to_delete))
            self.deletions.append(deletion)
            for key, row in list(self.rows.items()):
                if deletion.covers(row.timestamp_ms, row.written_us):
                    del self.rows[key]
            self.to_drop.append(deletion)

    async def drop(self, which: int, _: object) -> None:
        if self.to_drop:
            deletion = self.to_drop.pop(which % len(self.to_drop))
            await self.cache.store.drop_latest(self.device_id, deletion.written_us)

    async def begin(self, _which: int, _: object) -> None:
        self.to_read.append((await self.cache.store.begin_fill([self.device_id]))[self.device_id])

    async def read(self, which: int, _: object) -> None:
        if self.to_read:
            generation = self.to_read.pop(which % len(self.to_read))
            self.to_fill.append((generation, list(self.truth().values())))

    async def fill(self, which: int, _: object) -> None:
        if self.to_fill:
            generation, points = self.to_fill.pop(which % len(self.to_fill))
            await self.cache.store.fill_latest(self.device_id, points, generation)

    async def evict(self, _which: int, _: object) -> None:
        await self.cache.evict_latest(self.device_id)

    async def wait(self, which: int, _: object) -> None:
        # A submission is not under way for longer than the guards live, and clocks do
        # not differ by more.
        if self.cache.jumps_in_time and not (self.to_store or self.to_record or self.to_delete):
            await self.cache.advance(self.cache.ttls.latest_s * (0.6 if which % 2 else 1.1))
            self.first_mark = max(self.marks, default=0) + 1

    async def finish(self) -> None:
        """Let all that is under way come to its end."""
        while self.to_store or self.to_record or self.to_delete or self.to_drop:
            for step in (self.store, self.record, self.delete, self.drop):
                await step(0, ())
        while self.to_read or self.to_fill:
            await self.read(0, ())
            await self.fill(0, ())

    def truth(self) -> dict[str, LatestPoint]:
        newest: dict[str, LatestPoint] = {}
        for row in self.rows.values():
            held = newest.get(row.measurement)
            if held is None or row.timestamp_ms > held.timestamp_ms:
                newest[row.measurement] = row
        return newest

    async def check(self) -> None:
        """Whatever the cache answers is complete; with nothing half done it is the truth."""
        found = (await self.cache.store.latest([self.device_id])).get(self.device_id)
        if found is None:
            return
        assert [point.measurement for point in found] == sorted(p.measurement for p in found)
        answer = {point.measurement: point for point in found}
        for row in self.rows.values():
            if row.written_us in self.recorded:
                held = answer.get(row.measurement)
                assert held is not None, f"{row} is missing"
                assert (held.timestamp_ms, held.written_us) >= (row.timestamp_ms, row.written_us)
        if not (self.to_record or self.to_drop):
            assert answer == self.truth()
