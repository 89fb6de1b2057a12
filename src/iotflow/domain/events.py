"""Events: what happened, for people and programs to look back on."""

from typing import Any

import msgspec

TELEMETRY_SUBMITTED = "telemetry.submitted"


class Event(msgspec.Struct, frozen=True, gc=False):
    """`id` is deterministic where an event can be made again (a replay): a store keeps the first.

    `details` must be JSON-encodable.
    """

    id: str
    event_type: str
    timestamp_ms: int
    user_id: int | None
    device_id: int | None
    details: dict[str, Any]
