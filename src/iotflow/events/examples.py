"""Events as the API explorer shows them."""

from iotflow.http.examples import NEXT_CURSOR, answers

EVENTS = answers(
    200,
    {
        "items": [
            {
                "id": "5b0f3b0c7d2a4e0e9a8f1c2d3e4f5a6b",
                "event_type": "device.registered",
                "device_id": 42,
                "user_id": 7,
                "timestamp": "2026-01-31T14:15:00.000Z",
                "details": {"name": "greenhouse-1"},
            }
        ],
        "next_cursor": NEXT_CURSOR,
    },
)
