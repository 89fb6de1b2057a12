"""What telemetry looks like over HTTP."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, WithJsonSchema

from iotflow.http.pagination import Cursor
from iotflow.http.responses import ProblemDocument
from iotflow.http.schemas import Model, Query
from iotflow.telemetry.aggregates import Aggregation
from iotflow.telemetry.verdicts import MAX_NAME_LENGTH

Name = Annotated[
    str,
    StringConstraints(max_length=MAX_NAME_LENGTH, pattern=r"^[A-Za-z][A-Za-z0-9_./-]{0,63}$"),
]
TimeText = Annotated[
    str | None,
    Field(
        max_length=64,
        description="RFC 3339 with an offset, epoch milliseconds, or relative: -24h, -15m, now",
    ),
]
DeviceId = Annotated[int, Field(ge=1, le=2**63 - 1)]
JsonValue = Annotated[
    float | int | bool | str,
    WithJsonSchema({"type": ["number", "boolean", "string"]}),
]


StartTime = Annotated[
    TimeText,
    Field(
        description="From when on, included. RFC 3339 with an offset, epoch milliseconds, or "
        "relative. 24 hours ago if not said.",
        examples=["-24h", "2026-01-31T00:00:00Z"],
    ),
]
EndTime = Annotated[
    TimeText,
    Field(
        description="Until when, not included. Now if not said.",
        examples=["now", "2026-02-01T00:00:00+01:00"],
    ),
]


class RangeQuery(Query):
    start_time: StartTime = None
    end_time: EndTime = None


class HistoryParameters(RangeQuery):
    measurement: Annotated[
        list[Name],
        Field(
            max_length=64,
            description="These measurements alone; repeat it for several",
            examples=[["temperature", "co2"]],
        ),
    ] = Field(default_factory=list[str])
    limit: Annotated[int, Field(ge=1, le=10_000, description="Points on a page")] = 100
    order: Annotated[Literal["asc", "desc"], Field(description="desc: newest first")] = "desc"
    cursor: Cursor = None


class FleetHistoryParameters(RangeQuery):
    limit: Annotated[int, Field(ge=1, le=10_000, description="Points on a page")] = 100
    cursor: Cursor = None


class LatestManyParameters(Query):
    device_id: Annotated[
        list[DeviceId], Field(max_length=500, description="Repeat it for several devices")
    ] = Field(default_factory=list[DeviceId])
    group_id: Annotated[
        int | None,
        Field(ge=1, le=2**63 - 1, description="Instead of devices: a group's, 500 on a page"),
    ] = None
    cursor: Cursor = None


class AggregateParameters(RangeQuery):
    field: Annotated[Name, Field(description="Which measurement", examples=["temperature"])]
    aggregation: Annotated[
        list[Aggregation],
        Field(
            max_length=7,
            description="What to work out for each window; repeat it for several",
            examples=[["mean", "max"]],
        ),
    ] = Field(default_factory=list[Aggregation])
    window: Annotated[
        str | None,
        Field(
            description="How long a window is: minutes, hours, days, 1w or 1mo",
            max_length=16,
            examples=["1h", "1d"],
        ),
    ] = None
    timezone: Annotated[
        str,
        Field(
            description="An IANA time zone, whose calendar the windows follow",
            max_length=64,
            examples=["Europe/Berlin"],
        ),
    ] = "UTC"
    fill: Annotated[
        Literal["none", "null"], Field(description="null: empty windows are answered as well")
    ] = "none"
    points: Annotated[
        int | None,
        Field(
            ge=3,
            le=10_000,
            description="Thin the range to so many points, instead of windows",
            examples=[500],
        ),
    ] = None


class DeleteParameters(Query):
    start_time: Annotated[
        str,
        Field(max_length=64, description="Included", examples=["2026-01-30T00:00:00Z"]),
    ]
    end_time: Annotated[
        str,
        Field(max_length=64, description="Not included", examples=["2026-01-31T00:00:00Z"]),
    ]


class Rejected(Model):
    measurement: Annotated[str | None, Field(description="null where a whole record was refused")]
    code: str
    message: str
    index: Annotated[int | None, Field(description="The record's place in a batch")] = None


class ReceiptOut(Model):
    """What became of a submission. What was accepted is durable."""

    device_id: int
    timestamp: str
    accepted: Annotated[int, Field(description="Measurements that are stored")]
    rejected: list[Rejected]


class HistoryPoint(Model):
    timestamp: str
    measurement_name: str
    value: JsonValue
    unit: str | None


class HistoryOut(Model):
    device_id: int
    start_time: str
    end_time: str
    count: int
    truncated: Annotated[bool, Field(description="Whether the range holds more points")]
    next_cursor: str | None
    data: list[HistoryPoint]


class FleetPoint(HistoryPoint):
    device_id: int
    device_name: str


class FleetHistoryOut(Model):
    user_id: int
    start_time: str
    end_time: str
    count: int
    truncated: bool
    next_cursor: str | None
    data: list[FleetPoint]


class LatestMeasurement(Model):
    value: JsonValue
    unit: str | None
    timestamp: str


class LatestOut(Model):
    device_id: int
    timestamp: Annotated[str | None, Field(description="That of the newest point")]
    data: dict[str, JsonValue]
    measurements: dict[str, LatestMeasurement]


class LatestManyOut(Model):
    items: list[LatestOut]
    next_cursor: str | None = None


class WindowOut(Model):
    """A window: its calendar start, how many points it holds, and what was asked for."""

    timestamp: str
    count: int | None = None
    mean: float | None = None
    sum: float | None = None
    min: float | None = None
    max: float | None = None
    first: JsonValue | None = None
    last: JsonValue | None = None


class ChartPoint(Model):
    timestamp: str
    value: float


class WindowsOut(Model):
    device_id: int
    field: str
    window: str
    data: list[WindowOut]


class ChartOut(Model):
    device_id: int
    field: str
    points: int
    data: list[ChartPoint]


class DeletedOut(Model):
    deleted: Annotated[int | None, Field(description="null where the store cannot know")]


class NothingAcceptedOut(ProblemDocument):
    """The problem of a submission of which nothing was stored.

    `nothing_accepted` has these two; what could not be read as a submission has `errors`.
    """

    accepted: Literal[0] = 0
    rejected: list[Rejected] = Field(default_factory=list[Rejected])


Document = dict[str, Any]

_VALUE: Document = {
    "oneOf": [
        {"type": "number"},
        {"type": "boolean"},
        {"type": "string", "maxLength": 1024},
        {
            "type": "object",
            "properties": {
                "value": {"type": ["number", "boolean", "string"]},
                "unit": {"type": ["string", "null"], "maxLength": 32},
            },
            "required": ["value"],
            "additionalProperties": False,
        },
    ]
}
_TIMESTAMP: Document = {
    "description": "RFC 3339 with an offset, or epoch milliseconds",
    "anyOf": [
        {"type": "string", "format": "date-time"},
        {"type": "integer", "minimum": 100_000_000_000, "maximum": 253_402_300_799_999},
    ],
}
_RECORD: Document = {
    "data": {
        "type": "object",
        "description": "1 to 256 measurements by name",
        "minProperties": 1,
        "maxProperties": 256,
        "propertyNames": {"pattern": "^[A-Za-z][A-Za-z0-9_./-]{0,63}$"},
        "additionalProperties": _VALUE,
    },
    "timestamp": _TIMESTAMP,
    "metadata": {
        "type": ["object", "null"],
        "description": "Anything up to 16 KiB; it goes to the event, not to the points",
    },
}
SUBMISSION: Document = {
    "type": "object",
    "properties": _RECORD | {"timestamp": {"anyOf": [*_TIMESTAMP["anyOf"], {"type": "null"}]}},
    "required": ["data"],
    "additionalProperties": False,
}
RECORD: Document = {
    "type": "object",
    "properties": _RECORD,
    "required": ["data", "timestamp"],
    "additionalProperties": False,
}
BATCH: Document = {
    "type": "object",
    "properties": {"records": {"type": "array", "minItems": 1, "maxItems": 5000, "items": RECORD}},
    "required": ["records"],
    "additionalProperties": False,
}
