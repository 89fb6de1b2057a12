"""Writing submissions: the index where it must rise, then the points of each day."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import acsylla

from iotflow.domain.points import VALUE_TYPES, Point, Submission, ValueType
from iotflow.domain.times import DAY_MS
from iotflow.errors import OverloadedError, StoreUnavailableError
from iotflow.stores.telemetry.cassandra.driver import Driver, Prepared
from iotflow.stores.telemetry.cassandra.rows import DAY_S, time_bytes
from iotflow.stores.telemetry.cassandra.statements import Statements
from iotflow.stores.telemetry.cassandra.written import IndexEntries, WrittenIndex

_KINDS = {python_type: int(kind) for python_type, kind in VALUE_TYPES.items()}
_INTEGER, _TEXT = int(ValueType.INTEGER), int(ValueType.TEXT)

# A batch of one partition is one mutation: no limit of batch sizes holds for it, only that of
# mutations (half a segment of the commit log, 16 MiB by default).
_CHUNK_ROWS = 1_000
_CHUNK_BYTES = 512 * 1024
_ROW_BYTES = 150  # of a row without its texts, generously
_CHUNKS_AT_ONCE = 4
_PREPARED_ROWS = 16
_MAX_PREPARED_BATCHES = 192

# By kind of row. A column that a row does not have is left out: a NULL would be a tombstone.
_INSERTS = (
    "INSERT INTO {keyspace}.telemetry_by_device (device_id, day, timestamp, measurement_name,"
    " user_id, value, value_type, unit) VALUES (?, ?, {time}, ?, ?, ?, ?, ?)",
    "INSERT INTO {keyspace}.telemetry_by_device (device_id, day, timestamp, measurement_name,"
    " user_id, value, value_type, unit, int_value) VALUES (?, ?, {time}, ?, ?, ?, ?, ?, ?)",
    "INSERT INTO {keyspace}.telemetry_by_device (device_id, day, timestamp, measurement_name,"
    " user_id, value, value_type, unit, text_value) VALUES (?, ?, {time}, ?, ?, ?, ?, ?, ?)",
)
_INSERT_DAY = (
    "INSERT INTO {keyspace}.days_by_device (device_id, day) VALUES (?, ?)"
    " USING TIMESTAMP ? AND TTL ?"
)
# The higher bound wins, whatever the order in which they arrive.
_INSERT_BOUND = (
    "INSERT INTO {keyspace}.latest_by_device (device_id, measurement_name, timestamp)"
    " VALUES (?, ?, {time}) USING TIMESTAMP ?"
)

Signature = tuple[int, int, int]
"""How many rows of each kind a prepared batch has, in this order."""


class Writer:
    """Writes with what a submission says; `index_ttl_s` is 0 where points are kept for ever."""

    def __init__(
        self, driver: Driver, statements: Statements, written: WrittenIndex, index_ttl_s: int
    ) -> None:
        self._driver = driver
        self._statements = statements
        self._written = written
        self._index_ttl_s = index_ttl_s
        self._batches: dict[Signature, Prepared] = {}

    async def write(self, submission: Submission) -> None:
        entries = self._written.missing(submission.device_id, submission.points)
        chunks = _chunks(submission.points)
        if entries is None and len(chunks) == 1:
            await self._write_chunk(submission, chunks[0])
            return
        self._driver.require_room()
        try:
            if entries is not None:
                await self._write_index(submission.device_id, entries, submission.written_us)
            await self._write_chunks(submission, chunks)
        except OverloadedError as error:
            # To the caller this would say that nothing was begun.
            raise StoreUnavailableError("telemetry") from error

    async def _write_chunks(
        self, submission: Submission, chunks: Sequence[Sequence[Point]]
    ) -> None:
        for begin in range(0, len(chunks), _CHUNKS_AT_ONCE):
            some = chunks[begin : begin + _CHUNKS_AT_ONCE]
            await asyncio.gather(*(self._write_chunk(submission, chunk) for chunk in some))

    async def _write_chunk(self, submission: Submission, points: Sequence[Point]) -> None:
        """Points of one day in one request."""
        rows = _rows(submission, points)
        if len(points) <= _PREPARED_ROWS:
            signature = (len(rows[0]), len(rows[1]), len(rows[2]))
            prepared = self._batches.get(signature)
            if prepared is None and len(self._batches) < _MAX_PREPARED_BATCHES:
                prepared = await self._prepare_batch(signature)
            if prepared is not None:
                parameters: list[Any] = [submission.written_us]
                for of_kind in rows:
                    for row in of_kind:
                        parameters += row
                await self._driver.run(prepared.bind(parameters))
                return
        await self._write_rows(submission.written_us, rows)

    async def _write_rows(self, written_us: int, rows: Iterable[list[list[Any]]]) -> None:
        batch = acsylla.create_batch_unlogged()
        for insert, of_kind in zip(_INSERTS, rows, strict=True):
            if of_kind:
                prepared = await self._statements.get(f"{insert} USING TIMESTAMP ?")
                for row in of_kind:
                    row.append(written_us)
                    batch.add_statement(prepared.bind(row))
        await self._driver.run_batch(batch)

    async def _prepare_batch(self, signature: Signature) -> Prepared:
        inserts = [f"{_INSERTS[kind]};" for kind in range(3) for _ in range(signature[kind])]
        cql = f"BEGIN UNLOGGED BATCH USING TIMESTAMP ? {' '.join(inserts)} APPLY BATCH"
        prepared = await self._statements.get(cql)
        self._batches[signature] = prepared
        return prepared

    async def _write_index(self, device_id: int, entries: IndexEntries, written_us: int) -> None:
        """One mutation: both tables have the device as their key."""
        batch = acsylla.create_batch_unlogged()
        if entries.days:
            insert_day = await self._statements.get(_INSERT_DAY)
            for day in entries.days:
                parameters = [device_id, day * DAY_S, written_us, self._index_ttl_s]
                batch.add_statement(insert_day.bind(parameters))
        if entries.bounds:
            insert_bound = await self._statements.get(_INSERT_BOUND)
            for name, bound_ms in entries.bounds.items():
                parameters = [device_id, name, time_bytes(bound_ms), bound_ms * 1_000]
                batch.add_statement(insert_bound.bind(parameters))
        await self._driver.run_batch(batch)
        self._written.add(device_id, entries)


def _rows(submission: Submission, points: Sequence[Point]) -> tuple[list[list[Any]], ...]:
    """Parameters by kind of row: plain numbers, integers, texts."""
    device_id, user_id = submission.device_id, submission.user_id
    plain: list[list[Any]] = []
    integers: list[list[Any]] = []
    texts: list[list[Any]] = []
    last_ms, at, day_s = -1, b"", 0
    for point in points:
        timestamp_ms, value = point.timestamp_ms, point.value
        if timestamp_ms != last_ms:
            last_ms, at = timestamp_ms, time_bytes(timestamp_ms)
            day_s = timestamp_ms // DAY_MS * DAY_S
        kind = _KINDS[type(value)]
        row: list[Any] = [device_id, day_s, at, point.measurement, user_id, 0.0, kind, point.unit]
        if kind == _TEXT:
            row.append(value)
            texts.append(row)
            continue
        row[5] = float(value)
        if kind == _INTEGER:
            row.append(value)
            integers.append(row)
        else:
            plain.append(row)
    return plain, integers, texts


def _chunks(points: Sequence[Point]) -> list[Sequence[Point]]:
    """The points of each day, in parts of bounded size."""
    first_day = points[0].timestamp_ms // DAY_MS
    if len(points) <= _PREPARED_ROWS and all(p.timestamp_ms // DAY_MS == first_day for p in points):
        # Names and texts have bounds of their own, far below a chunk's for so few.
        return [points]
    by_day: dict[int, list[Point]] = {}
    for point in points:
        by_day.setdefault(point.timestamp_ms // DAY_MS, []).append(point)
    return [chunk for of_day in by_day.values() for chunk in _parts(of_day)]


def _parts(points: list[Point]) -> list[Sequence[Point]]:
    parts: list[Sequence[Point]] = []
    part: list[Point] = []
    size_bytes = 0
    for point in points:
        value = point.value
        characters = len(point.measurement) + len(point.unit)
        characters += len(value) if isinstance(value, str) else 0
        row_bytes = _ROW_BYTES + 4 * characters
        if part and (len(part) == _CHUNK_ROWS or size_bytes + row_bytes > _CHUNK_BYTES):
            parts.append(part)
            part, size_bytes = [], 0
        part.append(point)
        size_bytes += row_bytes
    parts.append(part)
    return parts
