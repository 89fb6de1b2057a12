"""Batches to the server, and what it says of them."""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx
import msgspec

from iotflow.cli.client import NOT_IOTFLOW, ApiClient, ServerUnreachableError, require_success
from iotflow.cli.importing.batches import body_of
from iotflow.cli.importing.records import Record, Rejected
from iotflow.cli.retrying import MOST_LIMITED, Retrying, StillLimitedError

# Two refusals of a batch are a busy moment; more, and it may be larger than the limit itself.
_LIMITED_BEFORE_SPLIT = 3
_HEADERS = {"Content-Type": "application/json", "Content-Encoding": "gzip"}


class _Refusal(msgspec.Struct):
    code: str
    message: str
    measurement: str | None = None
    index: int = -1


class _Receipt(msgspec.Struct):
    """An answer 201, 207, or 422 where nothing was acceptable."""

    accepted: int
    rejected: list[_Refusal]


@dataclass(slots=True)
class Outcome:
    """What became of records: measurements accepted, and the others."""

    accepted: int = 0
    rejected: list[Rejected] = field(default_factory=list[Rejected])

    def add(self, other: "Outcome") -> None:
        self.accepted += other.accepted
        self.rejected += other.rejected


class Sender:
    """Sends records for one device. What was sent twice is stored once, so it may be repeated."""

    def __init__(self, client: ApiClient, retrying: Retrying) -> None:
        self._client = client
        self._retrying = retrying

    def send(self, records: Sequence[Record]) -> Outcome:
        """Send records until each is accepted or rejected.

        Raises:
            ServerUnreachableError: the server did not answer; unknown what was stored.
            RefusedError: the server refuses the device, or every request.
        """
        if not records:
            return Outcome()
        body = gzip.compress(body_of(records), compresslevel=1, mtime=0)
        single = len(records) == 1
        try:
            most_limited = MOST_LIMITED if single else _LIMITED_BEFORE_SPLIT
            answer = self._retrying.call(lambda: self._post(body), most_limited)
        except StillLimitedError:
            if single:
                raise
            return self._halves(records)
        if answer.status_code == 413:
            return self._too_large(records[0]) if single else self._halves(records)
        return _outcome(answer, records)

    def _post(self, body: bytes) -> httpx.Response:
        return self._client.send("POST", "/telemetry/batch", content=body, headers=_HEADERS)

    def _halves(self, records: Sequence[Record]) -> Outcome:
        middle = len(records) // 2
        outcome = self.send(records[:middle])
        outcome.add(self.send(records[middle:]))
        return outcome

    def _too_large(self, record: Record) -> Outcome:
        message = "The server takes no body as large as this row alone."
        return Outcome(0, [Rejected(record.line, record.time, None, "body_too_large", message)])


def _outcome(answer: httpx.Response, records: Sequence[Record]) -> Outcome:
    if answer.status_code != 422:
        require_success(answer)
    try:
        receipt = msgspec.json.decode(answer.content, type=_Receipt)
    except msgspec.DecodeError:
        require_success(answer)  # a 422 about something else
        raise ServerUnreachableError(NOT_IOTFLOW) from None
    return Outcome(receipt.accepted, [_located(each, records) for each in receipt.rejected])


def _located(refusal: _Refusal, records: Sequence[Record]) -> Rejected:
    known = 0 <= refusal.index < len(records)
    line, time = (records[refusal.index].line, records[refusal.index].time) if known else (0, "")
    return Rejected(line, time, refusal.measurement, refusal.code, refusal.message)
