"""Durable at once, in its place a little later (docs/decisions/0013).

Points are stored in the order of their key, so the submissions of many devices touch a page each:
most of what a commit costs is writing those pages. A commit of the journal writes one blob for
the whole group. Every few seconds the points are merged into their table, device by device, so
that a page is written once for all the submissions that fell on it meanwhile. A submission that
fills a page by itself goes to its place at once.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from time import monotonic

import msgspec
import structlog

from iotflow.domain.points import Submission
from iotflow.stores.telemetry.sqlite.driver import Connection, is_callers_fault, roll_back
from iotflow.stores.telemetry.sqlite.upserts import write_submissions

_MERGE_AFTER_POINTS = 50_000
_MERGE_AFTER_S = 5.0
_MAX_POINTS = 200_000
# Points merged for each that is collected meanwhile: a generation is merged before the next is due.
_PACE = 2
# And at each turn of the writer, so that merging ends whatever else it does.
_LEAST_PACE_POINTS = 4
# Fewer are not worth a transaction, about 0.4 ms of the writer's time.
_LEAST_CHUNK_POINTS = 128
# Of the journal, in a transaction of their own: some tens of microseconds each.
_FORGOTTEN_ROWS = 100
# Of devices that are read, in a transaction.
_MOST_AT_ONCE_POINTS = 5_000
_PAGE_POINTS = 64
_PAGE_BYTES = 4096
# The page with the counters, the one with the newest row, and one for what is split now and then.
_TRANSACTION_PAGES = 3

# A submission waits as the bytes that the journal's row has of it: a quarter of its objects' size.
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Submission).decode
_unpack_row = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode

_APPEND = "INSERT INTO journal (submissions) VALUES (?)"
_FORGET = "DELETE FROM journal WHERE seq <= ?"

_log = structlog.get_logger(__name__)


class _Generation:
    """Submissions by device, and the rows of the journal that hold them, first to last.

    Of a large fleet most devices have one: it stands without a list of its own.
    """

    def __init__(self) -> None:
        self.by_device: dict[int, bytes | list[bytes]] = {}
        self.points = 0
        self.first_seq = 0
        self.last_seq = 0
        self.begun_s = 0.0

    def add(self, submission: Submission, packed: bytes) -> None:
        self.points += len(submission.points)
        held = self.by_device.get(submission.device_id)
        if held is None:
            self.by_device[submission.device_id] = packed
        elif isinstance(held, bytes):
            self.by_device[submission.device_id] = [held, packed]
        else:
            held.append(packed)

    def note_row(self, seq: int) -> None:
        self.first_seq = self.first_seq or seq
        self.last_seq = seq

    def in_order_of_key(self) -> None:
        """Have `take` give out devices that share a page together."""
        by_device = self.by_device
        self.by_device = {device_id: by_device[device_id] for device_id in sorted(by_device)}

    def take(self, device_ids: Iterable[int], points: int) -> list[Submission]:
        """Submissions of these devices, up to the one with which they have so many points."""
        taken: list[Submission] = []
        for device_id in device_ids:
            held = self.by_device[device_id]
            for packed in (held,) if isinstance(held, bytes) else held:
                if points <= 0:
                    return taken
                submission = _unpack(packed)
                taken.append(submission)
                points -= len(submission.points)
        return taken

    def remove(self, taken: Iterable[Submission]) -> None:
        """Remove what `take` gave."""
        counts: dict[int, int] = {}
        for submission in taken:
            self.points -= len(submission.points)
            counts[submission.device_id] = counts.get(submission.device_id, 0) + 1
        for device_id, count in counts.items():
            held = self.by_device[device_id]
            if isinstance(held, bytes) or count == len(held):
                del self.by_device[device_id]
            else:
                del held[:count]


class Journal:
    """The submissions that are durable and not merged yet, with the connection that writes them.

    All belongs to the writer's thread but `holds`, `devices` and `points`, for any to ask. A
    generation is collected while the one before it is merged in chunks; once that is done, its
    rows go. To merge a submission twice changes nothing, so what a dead process left is merged
    again.
    """

    def __init__(self, connection: Connection, monotonic: Callable[[], float] = monotonic) -> None:
        self._connection = connection
        self._monotonic = monotonic
        self._collecting = _Generation()
        self._merging = _Generation()
        self._fresh_points = 0
        self._owed_points = 0
        self._pages = 0
        for seq, row in connection.execute("SELECT * FROM journal ORDER BY seq"):
            for packed in map(bytes, _unpack_row(row)):
                self._merging.add(_unpack(packed), packed)
            self._merging.note_row(seq)

    def holds(self, device_id: int) -> bool:
        """Whether points of a device are durable, but not in their table yet."""
        return device_id in self._collecting.by_device or device_id in self._merging.by_device

    @property
    def devices(self) -> list[int]:
        """Those that it holds points of; may be asked on any thread."""
        return [*self._collecting.by_device, *self._merging.by_device]

    @property
    def points(self) -> int:
        """Points that are not in their table yet; may be asked on any thread."""
        return self._collecting.points + self._merging.points

    @property
    def is_full(self) -> bool:
        """Whether more is collected than the memory for it allows."""
        return self._collecting.points >= _MAX_POINTS

    def take_pages(self) -> int:
        """About how many pages were committed since the last call."""
        pages, self._pages = self._pages, 0
        return pages

    def seconds_until_due(self) -> float | None:
        """When there is something to merge; None for never."""
        if self._merging.last_seq:
            return 0.0
        if not self._collecting.last_seq:
            return None
        if self._collecting.points >= _MERGE_AFTER_POINTS:
            return 0.0
        return max(0.0, self._collecting.begun_s + _MERGE_AFTER_S - self._monotonic())

    def append(self, submissions: Sequence[Submission]) -> None:
        """Make submissions durable, all or none."""
        self._fresh_points = 0
        few = [each for each in submissions if len(each.points) < _PAGE_POINTS]
        packed = [_pack(submission) for submission in few]
        if len(few) == len(submissions):
            # A transaction by itself: BEGIN and COMMIT would each wait for the interpreter's lock.
            self._collect(few, packed, self._insert(packed))
            return
        with self._transaction():
            many = [each for each in submissions if len(each.points) >= _PAGE_POINTS]
            self._put_in_place(many)
            seq = self._insert(packed) if packed else 0
        if few:
            self._collect(few, packed, seq)

    def _insert(self, packed: Sequence[bytes]) -> int:
        row = _pack([msgspec.Raw(submission) for submission in packed])
        self._pages += _TRANSACTION_PAGES + len(row) // _PAGE_BYTES
        self._connection.execute(_APPEND, (row,))
        return self._connection.last_insert_rowid()

    def _collect(
        self, submissions: Sequence[Submission], packed: Sequence[bytes], seq: int
    ) -> None:
        collecting = self._collecting
        if not collecting.last_seq:
            collecting.begun_s = self._monotonic()
        before = collecting.points
        for submission, its_bytes in zip(submissions, packed, strict=True):
            collecting.add(submission, its_bytes)
        collecting.note_row(seq)
        self._fresh_points = collecting.points - before

    def keep_pace(self) -> None:
        """Merge at twice the pace at which points are collected, after each commit.

        Faster would hold up those who wait for the next commit: while the writer merges, the
        event loop waits for the interpreter's lock at each of its turns.
        """
        self._owed_points += max(_PACE * self._fresh_points, _LEAST_PACE_POINTS)
        self._fresh_points = 0
        if self._owed_points >= _LEAST_CHUNK_POINTS:
            self.merge_chunk(self._owed_points)

    def merge_devices(self, device_ids: Iterable[int]) -> None:
        """Put the points of these devices in their place."""
        wanted = sorted(set(device_ids))
        for generation in (self._merging, self._collecting):
            while held := [device_id for device_id in wanted if device_id in generation.by_device]:
                self._merge(generation, generation.take(held, _MOST_AT_ONCE_POINTS))

    def merge_chunk(self, points: int) -> None:
        """Put about `points` of the generation that is due in their place, or, where none is left,
        delete some of its rows."""
        self._owed_points = 0
        if not self._merging.last_seq:
            self._merging, self._collecting = self._collecting, _Generation()
            self._merging.in_order_of_key()
        merging = self._merging
        self._merge(merging, merging.take(merging.by_device, points))
        if not merging.by_device:
            self._forget(merging)

    def _forget(self, merged: _Generation) -> None:
        """Delete the next rows of a generation that is in its place."""
        upto_seq = min(merged.first_seq + _FORGOTTEN_ROWS - 1, merged.last_seq)
        with self._unflushed():
            self._connection.execute(_FORGET, (upto_seq,))
        self._pages += _TRANSACTION_PAGES + _FORGOTTEN_ROWS // 8
        merged.first_seq = upto_seq + 1
        if upto_seq == merged.last_seq:
            self._merging = _Generation()

    def merge_all(self, chunk_points: int, is_wanted: Callable[[], bool] = lambda: True) -> None:
        """Put everything in its place, or as much as is wanted."""
        while (self._merging.last_seq or self._collecting.last_seq) and is_wanted():
            self.merge_chunk(chunk_points)

    def _merge(self, generation: _Generation, taken: Sequence[Submission]) -> None:
        if not taken:
            return
        try:
            self._write(taken)
        except Exception as error:
            if not is_callers_fault(error):
                raise
            self._write_singly(taken)
        # Not before: whoever asks `holds` in between would read too early.
        generation.remove(taken)

    def _write_singly(self, submissions: Iterable[Submission]) -> None:
        """One that can never be stored must not hold up all others for ever."""
        for submission in submissions:
            try:
                self._write((submission,))
            except Exception as error:
                if not is_callers_fault(error):
                    raise
                _log.error(
                    "telemetry_not_storable", device_id=submission.device_id, error=repr(error)
                )

    def _write(self, submissions: Sequence[Submission]) -> None:
        with self._unflushed():
            self._put_in_place(submissions)

    def _put_in_place(self, submissions: Sequence[Submission]) -> None:
        points = sum(len(submission.points) for submission in submissions)
        devices = len({submission.device_id for submission in submissions})
        self._pages += _TRANSACTION_PAGES + devices + points // _PAGE_POINTS
        write_submissions(self._connection, submissions)

    @contextmanager
    def _unflushed(self) -> Generator[None]:
        """A transaction that waits for no disk. Until the next one that does, what it wrote may
        be lost with the power, but the journal's rows that say the same may not."""
        self._connection.pragma("synchronous", "NORMAL")
        try:
            with self._transaction():
                yield
        finally:
            self._connection.pragma("synchronous", "FULL")

    @contextmanager
    def _transaction(self) -> Generator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            roll_back(self._connection)
            raise
