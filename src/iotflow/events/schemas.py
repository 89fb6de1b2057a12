"""What events look like over HTTP."""

from typing import Annotated, Any

from pydantic import Field

from iotflow.http.pagination import Cursor, Limit
from iotflow.http.schemas import Model, Query
from iotflow.telemetry.schemas import EndTime, StartTime

_Id = Annotated[int, Field(ge=1, le=2**63 - 1)]


class EventParameters(Query):
    device_id: Annotated[_Id | None, Field(description="Of this device alone")] = None
    event_type: Annotated[
        str | None,
        Field(
            max_length=64,
            pattern=r"^[a-z][a-z0-9_.]*$",
            description="One type alone: telemetry.submitted, user.logged_in, device.registered …",
            examples=["device.registered"],
        ),
    ] = None
    start_time: StartTime = None
    end_time: EndTime = None
    limit: Limit = 100
    cursor: Cursor = None
    user_id: Annotated[
        _Id | None, Field(description="Whose events: your own, or an admin's choice")
    ] = None


class EventOut(Model):
    id: str
    event_type: str
    device_id: int | None
    user_id: int | None
    timestamp: str
    details: dict[str, Any]


class EventsOut(Model):
    items: list[EventOut]
    next_cursor: str | None
