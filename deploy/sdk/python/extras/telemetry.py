"""The everyday calls in one line each: send measurements, read a history of any length."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from .api.telemetry import device_history, submit_telemetry, submit_telemetry_batch
from .client import AuthenticatedClient
from .models.batch import Batch
from .models.batch_record import BatchRecord
from .models.device_history_order import DeviceHistoryOrder
from .models.history_point import HistoryPoint
from .models.measurements import Measurements
from .models.metadata import Metadata
from .models.quantity import Quantity
from .models.receipt import Receipt
from .models.submission import Submission
from .results import ok
from .types import UNSET

Value = float | bool | str | Quantity


def submit(
    device: AuthenticatedClient,
    data: Mapping[str, Value],
    *,
    timestamp: datetime | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Receipt:
    """Store the measurements of one moment, now if no `timestamp` is given.

    A timestamp is always sent, so that a retry after a lost answer doubles nothing.
    `rejected` in the receipt names the measurements that were not stored, and why.

    Raises:
        ApiError: none was stored.
        ValueError: the timestamp has no time zone.
    """
    submission = Submission(
        measurements(data),
        metadata=UNSET if metadata is None else Metadata.from_dict(dict(metadata)),
        timestamp=_aware(timestamp or datetime.now(UTC)),
    )
    return ok(submit_telemetry.sync(client=device, body=submission))


def submit_batch(
    device: AuthenticatedClient, records: Iterable[tuple[datetime, Mapping[str, Value]]]
) -> Receipt:
    """Store up to 5,000 moments or 20,000 measurements at once.

    Raises:
        ApiError: none was stored.
        ValueError: a timestamp has no time zone.
    """
    listed = [
        BatchRecord(data=measurements(data), timestamp=_aware(moment)) for moment, data in records
    ]
    return ok(submit_telemetry_batch.sync(client=device, body=Batch(listed)))


def history(
    client: AuthenticatedClient,
    device_id: int,
    *,
    start: datetime | str = "-24h",
    end: datetime | str = "now",
    measurement: list[str] | None = None,
    oldest_first: bool = False,
    page_size: int = 1000,
) -> Iterator[HistoryPoint]:
    """Every point of the range, page by page; only one page is held in memory.

    Raises:
        ApiError: a page could not be had; what was yielded before is right.
    """
    cursor: str | None = None
    while True:
        page = ok(
            device_history.sync(
                device_id,
                client=client,
                start_time=_query_time(start),
                end_time=_query_time(end),
                measurement=UNSET if measurement is None else measurement,
                order=DeviceHistoryOrder.ASC if oldest_first else DeviceHistoryOrder.DESC,
                limit=page_size,
                cursor=UNSET if cursor is None else cursor,
            )
        )
        yield from page.data
        cursor = page.next_cursor
        if cursor is None:
            return


def measurements(data: Mapping[str, Value]) -> Measurements:
    """A plain mapping as the generated functions want it."""
    made = Measurements()
    made.additional_properties.update(data)
    return made


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a timestamp needs a time zone: datetime.now(UTC), say")
    return moment


def _query_time(moment: datetime | str) -> str:
    return moment if isinstance(moment, str) else _aware(moment).isoformat()
