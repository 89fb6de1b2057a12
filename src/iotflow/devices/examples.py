"""Devices as the API explorer shows them."""

from typing import Any

from iotflow.devices.etags import ETAG_HEADER
from iotflow.http.examples import NEXT_CURSOR, answers, asks, example

_API_KEY = "iotd_Zb8QnTABcdefGhIjKlMnOpQrStUvWxYz0123456789A"
_KEY: dict[str, Any] = {
    "prefix": "iotd_Zb8QnT",
    "created_at": "2026-01-31T14:15:00.000Z",
    "last_used_at": "2026-01-31T14:30:00.000Z",
    "expires_at": "2027-01-31T14:15:00.000Z",
}
_LISTED_KEY = {"id": 51, **_KEY}
_ABOUT: dict[str, Any] = {
    "name": "greenhouse-1",
    "description": "Above the tomatoes",
    "device_type": "climate",
    "location": "Greenhouse, north bench",
    "firmware_version": "1.4.2",
    "hardware_version": "rev B",
    "labels": {"crop": "tomato", "site": "north"},
}
_DEVICE: dict[str, Any] = {
    "id": 42,
    "user_id": 7,
    **_ABOUT,
    "status": "active",
    "is_online": True,
    "last_seen": "2026-01-31T14:30:00.000Z",
    "created_at": "2026-01-31T14:15:00.000Z",
    "updated_at": "2026-01-31T14:15:00.000Z",
    "key": _KEY,
}
_STATUS: dict[str, Any] = {
    "device_id": 42,
    "status": "active",
    "is_online": True,
    "last_seen": "2026-01-31T14:30:00.000Z",
}
_REFUSED = {
    "index": 1,
    "code": "string_too_short",
    "message": "name: String should have at least 1 character",
}
_CONFIG = {"interval_s": 60, "unit": "celsius"}
_REPORTED = {"version": 3, "config": _CONFIG, "at": "2026-01-31T14:31:00.000Z"}

REGISTRATION = asks(
    named=example("A name is enough", {"name": "greenhouse-1"}),
    full=example("All that a device says of itself", _ABOUT),
)
BULK = asks(
    two=example("Two devices", {"devices": [{"name": "bench-1"}, {"name": "bench-2"}]}),
    partly=example("A bad one costs no other: 207", {"devices": [{"name": "bench-3"}, {}]}),
)
UPDATE = asks(
    moved=example("It was moved", {"location": "Greenhouse, south bench"}),
    maintenance=example("Into maintenance", {"status": "maintenance"}),
    relabelled=example(
        "Other labels, and active again", {"labels": {"crop": "bean"}, "status": "active"}
    ),
)
ROTATION = asks(
    overlap=example("A new key; the old one goes on for a day", {}),
    at_once=example(
        "A new key for ninety days; the old one ends",
        {"expires_in": 7_776_000, "overlap": 0},
    ),
)
CONFIG = asks(desired=example("What the device should apply", _CONFIG))
REPORT = asks(applied=example("What it has applied", {"version": 1, "config": _CONFIG}))

REGISTERED = answers(201, {"device": _DEVICE, "api_key": _API_KEY})
BULK_REGISTERED = answers(201, {"results": [{"index": 0, "device": _DEVICE, "api_key": _API_KEY}]})
BULK_PARTLY = answers(
    207,
    {"results": [{"index": 0, "device": _DEVICE, "api_key": _API_KEY}, _REFUSED]},
)
DEVICES = answers(200, {"items": [_DEVICE], "next_cursor": NEXT_CURSOR})
DEVICE = answers(200, _DEVICE)
DEVICE_WITH_ETAG = answers(200, _DEVICE, headers=ETAG_HEADER)
STATUS = answers(200, _STATUS)
STATUSES = answers(200, {"items": [_STATUS], "next_cursor": NEXT_CURSOR})
OWN_STATUS = answers(200, {**_STATUS, "name": "greenhouse-1"})
CREDENTIALS = answers(200, {"device_id": 42, "name": "greenhouse-1", "key": _KEY})
HEARTBEAT = answers(200, {"device_id": 42, "timestamp": "2026-01-31T14:30:00.000Z"})
KEYS = answers(200, {"items": [_LISTED_KEY]})
NEW_KEY = answers(201, {"key": _LISTED_KEY, "api_key": _API_KEY})
OWN_CONFIG = answers(200, {"version": 3, "config": _CONFIG}, headers=ETAG_HEADER)
BOTH_CONFIGS = answers(
    200, {"version": 3, "config": _CONFIG, "reported": _REPORTED}, headers=ETAG_HEADER
)
REPORTED = answers(200, _REPORTED)
