"""What looks after the stores, as it is asked for over HTTP."""

from typing import Annotated

from pydantic import Field

from iotflow.domain.times import InvalidTimeError, parse_integer_time, parse_query_time
from iotflow.errors import InvalidInputError
from iotflow.http.schemas import WHOLE, Body
from iotflow.maintenance.parameters import (
    ReplayParameters,
    VerificationParameters,
    WarmingParameters,
    points_of,
)

_MAX_LATE_S = 100 * 366 * 86_400

AnyTime = Annotated[
    str | int,
    Field(description="RFC 3339 with an offset, epoch milliseconds, or relative: -24h, -7d, now"),
]
OneDevice = Annotated[
    Annotated[int, Field(ge=1, le=2**63 - 1), WHOLE] | None,
    Field(description="This device alone"),
]


class NewReplay(Body):
    start_time: AnyTime
    end_time: AnyTime = "now"
    device_id: OneDevice = None
    late: Annotated[
        Annotated[int, Field(ge=0, le=_MAX_LATE_S), WHOLE] | None,
        Field(
            description="Seconds that points may be older than their submission. Left out, all "
            "points are looked through, whose number is what a replay costs. A batch that reaches "
            "further back comes whole all the same, unless it skips a whole day there."
        ),
    ] = None

    def parameters(self, now_ms: int, max_future_ms: int) -> ReplayParameters:
        """Raises InvalidInputError."""
        start_ms, end_ms = _range(self.start_time, self.end_time, now_ms)
        # What is submitted from now on has its event from whoever takes it.
        end_ms = min(end_ms, now_ms + 1)
        late_ms = None if self.late is None else self.late * 1000
        points, edge_ms = points_of(start_ms, end_ms, late_ms, max_future_ms)
        return ReplayParameters(
            start_ms * 1000,
            end_ms * 1000,
            points.start_ms,
            points.end_ms,
            None if self.device_id is None else [self.device_id],
            edge_ms=edge_ms,
        )


class NewVerification(Body):
    start_time: AnyTime = "-24h"
    end_time: AnyTime = "now"
    device_id: OneDevice = None
    repair: Annotated[bool, Field(description="Put right what can be")] = False

    def parameters(self, now_ms: int) -> VerificationParameters:
        """Raises InvalidInputError."""
        start_ms, end_ms = _range(self.start_time, self.end_time, now_ms)
        ids = None if self.device_id is None else [self.device_id]
        return VerificationParameters(start_ms, end_ms, ids, self.repair)


class NewWarming(Body):
    seen_since: Annotated[
        AnyTime | None, Field(description="Devices that were heard of since; left out, all")
    ] = None

    def parameters(self, now_ms: int) -> WarmingParameters:
        """Raises InvalidInputError."""
        since = self.seen_since
        return WarmingParameters(None if since is None else _time("seen_since", since, now_ms))


def _range(start: str | int, end: str | int, now_ms: int) -> tuple[int, int]:
    start_ms, end_ms = _time("start_time", start, now_ms), _time("end_time", end, now_ms)
    if end == "now":
        end_ms += 1
    if start_ms >= min(end_ms, now_ms + 1):
        raise InvalidInputError.of_field(
            "start_time", "empty_range", "start_time must lie before end_time, and in the past."
        )
    return start_ms, end_ms


def _time(field: str, value: str | int, now_ms: int) -> int:
    try:
        if isinstance(value, int):
            return parse_integer_time(value)
        return parse_query_time(value, now_ms)
    except InvalidTimeError as error:
        raise InvalidInputError.of_field(field, "invalid_time", str(error)) from None
