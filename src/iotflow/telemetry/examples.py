"""Telemetry as the API explorer shows it."""

from typing import Any

from iotflow.http.examples import JSON, NEXT_CURSOR, Responses, answers, asks, example

_AT = "2026-01-31T14:30:00Z"
_DAY = {"start_time": "2026-01-31T00:00:00.000Z", "end_time": "2026-02-01T00:00:00.000Z"}
_POINTS: list[dict[str, Any]] = [
    {
        "timestamp": "2026-01-31T14:30:00.000Z",
        "measurement_name": "co2",
        "value": 612,
        "unit": "ppm",
    },
    {
        "timestamp": "2026-01-31T14:30:00.000Z",
        "measurement_name": "temperature",
        "value": 23.5,
        "unit": "°C",
    },
]
_POINT_LINE = (
    '{"timestamp":"2026-01-31T14:30:00.000Z","measurement_name":"co2","value":612,"unit":"ppm"}\n'
)
_PAGE: dict[str, Any] = {**_DAY, "count": 2, "truncated": True, "next_cursor": NEXT_CURSOR}
_REJECTED: dict[str, Any] = {
    "measurement": "humidity",
    "code": "invalid_value",
    "message": 'Send a number, a boolean, text, or {"value": ..., "unit": "..."}.',
}
_LATEST: dict[str, Any] = {
    "device_id": 42,
    "timestamp": "2026-01-31T14:30:00.000Z",
    "data": {"co2": 612, "temperature": 23.5},
    "measurements": {
        "co2": {"value": 612, "unit": "ppm", "timestamp": "2026-01-31T14:30:00.000Z"},
        "temperature": {"value": 23.5, "unit": "°C", "timestamp": "2026-01-31T14:30:00.000Z"},
    },
}

SUBMISSION = asks(
    all_kinds=example(
        "Numbers, booleans, units, and metadata for the event",
        {
            "data": {
                "temperature": {"value": 23.5, "unit": "°C"},
                "co2": {"value": 612, "unit": "ppm"},
                "door_open": True,
            },
            "timestamp": _AT,
            "metadata": {"battery": "ok"},
        },
    ),
    no_clock=example("A device without a clock", {"data": {"temperature": 23.5}}),
    partly=example(
        "One measurement cannot be stored: 207",
        {"data": {"temperature": 23.6, "humidity": [40, 41]}, "timestamp": "2026-01-31T14:31:00Z"},
    ),
)
_RECORDS: list[dict[str, Any]] = [
    {"timestamp": "2026-01-31T14:32:00Z", "data": {"temperature": 23.7}},
    {"timestamp": "2026-01-31T14:33:00Z", "data": {"temperature": 23.9}},
]
_NDJSON = (
    '{"timestamp":"2026-01-31T14:34:00Z","data":{"temperature":24.0}}\n'
    '{"timestamp":1769870100000,"data":{"temperature":24.2}}\n'
)
BATCH = asks(
    two=example("Two records", {"records": _RECORDS}),
    partly=example(
        "One record cannot be stored: 207",
        {"records": [_RECORDS[0], {"timestamp": "yesterday", "data": {"temperature": 1}}]},
    ),
)
BATCH_LINES: dict[str, Any] = {
    "application/x-ndjson": {
        "schema": {"type": "string"},
        "examples": {"lines": example("A record a line", _NDJSON)},
    }
}

STORED = answers(
    201,
    {"device_id": 42, "timestamp": "2026-01-31T14:30:00.000Z", "accepted": 3, "rejected": []},
)
PARTLY_STORED = answers(
    207,
    {
        "device_id": 42,
        "timestamp": "2026-01-31T14:31:00.000Z",
        "accepted": 1,
        "rejected": [_REJECTED],
    },
)
_NOTHING: dict[str, Any] = {
    "type": "urn:iotflow:problem:nothing_accepted",
    "title": "Unprocessable Content",
    "status": 422,
    "detail": "None of the measurements could be stored.",
    "code": "nothing_accepted",
    "request_id": "0c8a4f3a9b7d4c1e",
    "accepted": 0,
    "rejected": [_REJECTED],
}
NOTHING_STORED: dict[str, Any] = {
    "examples": {"answer": example("Nothing could be stored; it says why", _NOTHING)}
}
LATEST_HEADERS = {
    "X-Cache": {
        "description": "hit, miss, or stale while the telemetry store is away",
        "schema": {"type": "string"},
        "example": "hit",
    }
}
LATEST = answers(200, _LATEST, headers=LATEST_HEADERS)
LATEST_OF_MANY = answers(200, {"items": [_LATEST], "next_cursor": NEXT_CURSOR})
_CSV = (
    "timestamp,measurement_name,value,unit\r\n"
    "2026-01-31T14:30:00.000Z,co2,612,ppm\r\n"
    "2026-01-31T14:30:00.000Z,temperature,23.5,°C\r\n"
)
HISTORY: Responses = {
    200: {
        "content": {
            JSON: {
                "examples": {"page": example("A page", {"device_id": 42, **_PAGE, "data": _POINTS})}
            },
            "text/csv": {
                "schema": {"type": "string"},
                "examples": {"page": example("The same as CSV", _CSV)},
            },
            "application/x-ndjson": {
                "schema": {"type": "string"},
                "examples": {"page": example("A point a line", _POINT_LINE)},
            },
        },
        "headers": {
            "X-Next-Cursor": {
                "description": "The next page's cursor, for CSV and NDJSON",
                "schema": {"type": "string"},
            }
        },
    }
}
AGGREGATED: Responses = {
    200: {
        "content": {
            JSON: {
                "examples": {
                    "windows": example(
                        "Statistics by window",
                        {
                            "device_id": 42,
                            "field": "temperature",
                            "window": "1h",
                            "data": [
                                {
                                    "timestamp": "2026-01-31T14:00:00.000Z",
                                    "count": 60,
                                    "mean": 23.6,
                                    "max": 24.2,
                                }
                            ],
                        },
                    ),
                    "chart": example(
                        "The range thinned for a chart",
                        {
                            "device_id": 42,
                            "field": "temperature",
                            "points": 3,
                            "data": [
                                {"timestamp": "2026-01-31T14:00:00.000Z", "value": 23.1},
                                {"timestamp": "2026-01-31T14:17:00.000Z", "value": 24.2},
                                {"timestamp": "2026-01-31T14:59:00.000Z", "value": 23.8},
                            ],
                        },
                    ),
                }
            }
        }
    }
}
FLEET = answers(
    200,
    {
        "user_id": 7,
        **_PAGE,
        "data": [{**point, "device_id": 42, "device_name": "greenhouse-1"} for point in _POINTS],
    },
)
DELETED = answers(200, {"deleted": 1440})
