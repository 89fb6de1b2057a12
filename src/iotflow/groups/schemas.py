"""What groups look like over HTTP."""

from typing import Annotated

from pydantic import Field, StringConstraints

from iotflow.domain.groups import Group, Membership
from iotflow.http.pagination import Cursor, Limit
from iotflow.http.schemas import WHOLE, Body, Model, Query, Text, Time

# As far as every JSON reader counts exactly; ids are given out one by one.
DeviceId = Annotated[int, Field(ge=1, le=2**53 - 1), WHOLE]
MAX_BULK = 1000


class GroupBody(Body):
    name: Annotated[
        Text, StringConstraints(min_length=1, max_length=128), Field(examples=["North wing"])
    ]
    description: Annotated[Text, StringConstraints(max_length=1024)] | None = None
    color: (
        Annotated[Text, StringConstraints(min_length=1, max_length=32), Field(examples=["#1f77b4"])]
        | None
    ) = None


class GroupMember(Body):
    device_id: DeviceId


class GroupMembers(Body):
    device_ids: Annotated[list[DeviceId], Field(min_length=1, max_length=MAX_BULK)]


class PageQuery(Query):
    limit: Limit = 100
    cursor: Cursor = None


class GroupOut(Model):
    id: int
    user_id: int
    name: str
    description: str | None
    color: str | None
    device_count: int
    created_at: Time
    updated_at: Time

    @classmethod
    def of(cls, group: Group) -> "GroupOut":
        return cls(
            id=group.id,
            user_id=group.user_id,
            name=group.name,
            description=group.description,
            color=group.color,
            device_count=group.device_count,
            created_at=group.created_at,
            updated_at=group.updated_at,
        )


class GroupsOut(Model):
    items: list[GroupOut]
    next_cursor: str | None


class MembershipOut(Model):
    device_id: int
    result: Membership


class MembershipsOut(Model):
    results: list[MembershipOut]
