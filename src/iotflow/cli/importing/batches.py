"""Records in batches that the batch call takes: the same ones each time the file is read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from iotflow.cli.importing.records import Item, Record, Rejected
from iotflow.telemetry.decoding import MAX_POINTS

MAX_BODY_BYTES = 8 * 1024 * 1024 - 1024
_MOST_REJECTED = 5000
_OPEN, _CLOSE = b'{"records":[', b"]}"


@dataclass(slots=True)
class Batch:
    """Records that are sent together, and what was rejected on the way to them."""

    records: list[Record] = field(default_factory=list[Record])
    rejected: list[Rejected] = field(default_factory=list[Rejected])
    points: int = 0
    body_bytes: int = 0

    def has_room_for(self, item: Item, most_records: int) -> bool:
        if isinstance(item, Rejected):
            return len(self.rejected) < _MOST_REJECTED
        return (
            len(self.records) < most_records
            and self.points + len(item.values) <= MAX_POINTS
            and self.body_bytes + len(item.body) + 1 <= MAX_BODY_BYTES
        )

    def add(self, item: Item) -> None:
        if isinstance(item, Rejected):
            self.rejected.append(item)
        else:
            self.records.append(item)
            self.points += len(item.values)
            self.body_bytes += len(item.body) + 1


def batches(items: Iterable[Item], most_records: int) -> Iterator[Batch]:
    """Everything in `items`, in order; a batch is bounded in records, points, bytes, rejections."""
    batch = Batch()
    for item in items:
        if not batch.has_room_for(item, most_records):
            yield batch
            batch = Batch()
        batch.add(item)
    if batch.records or batch.rejected:
        yield batch


def body_of(records: Iterable[Record]) -> bytes:
    """The batch call's body."""
    return _OPEN + b",".join(record.body for record in records) + _CLOSE
