"""Groups as the API explorer shows them."""

from typing import Any

from iotflow.http.examples import NEXT_CURSOR, answers, asks, example

_GROUP: dict[str, Any] = {
    "id": 9,
    "user_id": 7,
    "name": "North wing",
    "description": "Everything behind the second door",
    "color": "#1f77b4",
    "device_count": 1,
    "created_at": "2026-01-31T14:20:00.000Z",
    "updated_at": "2026-01-31T14:20:00.000Z",
}
_ADDED = {"device_id": 42, "result": "added"}
_ALREADY = {"device_id": 42, "result": "already"}
_NOT_FOUND = {"device_id": 4711, "result": "not_found"}

NEW_GROUP = asks(
    named=example("A name is enough", {"name": "South wing"}),
    full=example(
        "All that a group says of itself",
        {key: _GROUP[key] for key in ("name", "description", "color")},
    ),
)
REPLACED = asks(
    renamed=example("Another name and colour", {"name": "North wing, upper", "color": "#2ca02c"})
)
MEMBER = asks(device=example("One device", {"device_id": 42}))
MEMBERS = asks(
    devices=example("Several devices", {"device_ids": [42, 43]}),
    unknown=example("One that does not exist: 207", {"device_ids": [42, 4711]}),
)

CREATED = answers(201, {**_GROUP, "device_count": 0})
GROUP = answers(200, _GROUP)
GROUPS = answers(200, {"items": [_GROUP], "next_cursor": NEXT_CURSOR})
ADDED = answers(201, _ADDED)
ALREADY = answers(200, _ALREADY)
ALL_ADDED = answers(200, {"results": [_ADDED, {"device_id": 43, "result": "already"}]})
SOME_ADDED = answers(207, {"results": [_ALREADY, _NOT_FOUND]})
