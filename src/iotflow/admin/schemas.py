"""What only administrators see, over HTTP."""

from typing import Annotated, Literal

from pydantic import Field

from iotflow.devices.schemas import DeviceListQuery, DeviceStatusOut
from iotflow.http.schemas import WHOLE, Body, Model, Time
from iotflow.stores.registry.protocol import RegistryCounts

_MAX_INVITATION_S = 365 * 86_400


class AllDevicesQuery(DeviceListQuery):
    user_id: Annotated[int | None, Field(ge=1, le=2**63 - 1, description="Of this user")] = None


class StatusChange(Body):
    # Text, as a strict body has no members of an enumeration.
    status: Literal["active", "inactive", "maintenance"]


class DeviceStatusesOut(Model):
    items: list[DeviceStatusOut]
    next_cursor: str | None


class NewInvitation(Body):
    expires_in: Annotated[
        Annotated[int, Field(ge=60, le=_MAX_INVITATION_S), WHOLE] | None,
        Field(
            description="Seconds; a week where it is left out and the operator has set nothing.",
        ),
    ] = None


class InvitationOut(Model):
    id: int
    invitation: Annotated[str, Field(description="Shown this once. It works once.")]
    created_at: Time
    expires_at: Time


class UserCountsOut(Model):
    total: int
    active: int
    admins: int


class DeviceCountsOut(Model):
    total: int
    active: int
    inactive: int
    maintenance: int


class StatsOut(Model):
    users: UserCountsOut
    devices: DeviceCountsOut
    groups: int
    uptime_s: int

    @classmethod
    def of(cls, counts: RegistryCounts, uptime_s: int) -> "StatsOut":
        by_status = {status.value: number for status, number in counts.devices.items()}
        return cls(
            users=UserCountsOut(
                total=counts.users, active=counts.active_users, admins=counts.admins
            ),
            devices=DeviceCountsOut(total=sum(by_status.values()), **by_status),
            groups=counts.groups,
            uptime_s=uptime_s,
        )
