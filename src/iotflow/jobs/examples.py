"""Jobs as the API explorer shows them."""

from typing import Any

from iotflow.http.examples import NEXT_CURSOR, answers, asks, example

_BEGUN = {"job": {"id": 5, "status": "pending"}}
_DELETION: dict[str, Any] = {
    "id": 5,
    "kind": "device_deletion",
    "status": "done",
    "counts": {"points": 1440, "events": 96},
    "created_at": "2026-01-31T14:40:00.000Z",
    "finished_at": "2026-01-31T14:40:06.000Z",
    "requested_by": 7,
    "parameters": {},
    "findings": [],
}
_REPLAY: dict[str, Any] = {
    "id": 6,
    "kind": "event_replay",
    "status": "done",
    "counts": {"devices": 340, "submissions": 48_210, "events": 1_204},
    "created_at": "2026-01-31T14:50:00.000Z",
    "requested_by": 7,
    "finished_at": "2026-01-31T14:51:30.000Z",
    "parameters": {"from_us": 1_769_868_000_000_000, "to_us": 1_769_871_600_000_000},
    "progress": {"done": 340, "total": 340},
    "findings": [],
}

REPLAY = asks(
    outage=example("An hour", {"start_time": "-1h"}),
    device=example(
        "One device, points of at most a week before they were submitted",
        {
            "start_time": "2026-01-31T14:00:00Z",
            "end_time": "2026-01-31T15:00:00Z",
            "device_id": 42,
            "late": 604_800,
        },
    ),
)
VERIFICATION = asks(
    day=example("The last day, looked at alone", {}),
    repair=example(
        "The last week, and put right what can be", {"start_time": "-7d", "repair": True}
    ),
)
WARMING = asks(
    all=example("Every device", {}),
    seen=example("Devices that were heard of today", {"seen_since": "-24h"}),
)

DELETING = answers(202, _BEGUN)
BEGUN = answers(202, _BEGUN)
JOB = answers(200, _DELETION)
JOBS = answers(200, {"items": [_REPLAY, _DELETION], "next_cursor": NEXT_CURSOR})
