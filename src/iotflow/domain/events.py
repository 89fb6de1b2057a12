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


def submission_id(written_us: int, device_id: int) -> str:
    """The id of a submission's event. It rises with time, so that the newest lie together in every
    store's index of ids; a random place for each costs more than the event."""
    return f"{written_us}-{device_id}"


def mark_of(submission_id: str) -> int:
    """The `written_us` of a submission, by the id of its event."""
    return int(submission_id.partition("-")[0])
