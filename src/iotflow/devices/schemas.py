"""What devices look like over HTTP."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, WithJsonSchema, field_validator

from iotflow.devices.service import DeviceView, RegisteredDevice
from iotflow.domain.devices import ApiKey, Device, DeviceStatus, KeyRecord
from iotflow.domain.times import from_ms
from iotflow.http.pagination import Cursor, Limit
from iotflow.http.schemas import WHOLE, Body, Model, Query, Text, Time

Text64 = Annotated[Text, StringConstraints(min_length=1, max_length=64)]
Text128 = Annotated[Text, StringConstraints(min_length=1, max_length=128)]
Text256 = Annotated[Text, StringConstraints(min_length=1, max_length=256)]
LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_./-]{0,62}$")]
Labels = Annotated[
    dict[LabelKey, Annotated[Text, StringConstraints(max_length=128)]],
    Field(
        max_length=32,
        examples=[{"room": "kitchen"}],
        json_schema_extra={"additionalProperties": False},
    ),
]

MAX_KEY_LIFETIME_S = 10 * 365 * 86_400


class DeviceRegistration(Body):
    name: Annotated[Text128, Field(examples=["greenhouse-1"])]
    description: Annotated[Text, StringConstraints(max_length=1024)] | None = None
    device_type: Annotated[Text64, Field(examples=["climate"])] | None = None
    location: Annotated[Text256, Field(examples=["Greenhouse, north bench"])] | None = None
    firmware_version: Text64 | None = None
    hardware_version: Text64 | None = None
    labels: Labels = Field(default_factory=dict[str, str])


class DeviceUpdate(Body):
    """What is left out stays; null empties a field. Labels are replaced as a whole."""

    # A default factory: the document shall not say that a name or a status may be left empty.
    name: Text128 = Field(default_factory=str, examples=["greenhouse-1"])
    description: Annotated[Text, StringConstraints(max_length=1024)] | None = None
    device_type: Text64 | None = None
    location: Text256 | None = None
    firmware_version: Text64 | None = None
    hardware_version: Text64 | None = None
    labels: Labels = Field(default_factory=dict[str, str])
    # Text, as a strict body has no members of an enumeration.
    status: Literal["active", "inactive", "maintenance"] = Field(default_factory=lambda: "active")


MAX_BULK = 1000
# Each is judged by itself, so that a bad one costs no other; the document names its schema.
_UnjudgedRegistration = Annotated[
    Any, WithJsonSchema({"$ref": "#/components/schemas/DeviceRegistration"})
]


class BulkRegistration(Body):
    devices: Annotated[list[_UnjudgedRegistration], Field(min_length=1, max_length=MAX_BULK)]


class KeyRotation(Body):
    expires_in: Annotated[
        Annotated[int, Field(ge=1, le=MAX_KEY_LIFETIME_S), WHOLE] | None,
        Field(description="Seconds the new key lives; null: for ever"),
    ] = None
    overlap: Annotated[
        int,
        Field(ge=0, le=30 * 86_400, description="Seconds the old key goes on; 0: ends now"),
        WHOLE,
    ] = 86_400


class DeviceListQuery(Query):
    status: DeviceStatus | None = None
    device_type: Annotated[str | None, Field(examples=["climate"])] = None
    group_id: Annotated[int | None, Field(ge=1, le=2**63 - 1)] = None
    label: Annotated[
        list[Annotated[str, WithJsonSchema({"type": "string", "pattern": "^[^:]+:"})]],
        Field(
            max_length=8,
            description="key:value; repeat it for several labels",
            examples=[["crop:tomato"]],
        ),
    ] = Field(default_factory=list[str])
    q: Annotated[
        str | None,
        Field(
            max_length=128,
            description="Part of a name, description or location",
            examples=["green"],
        ),
    ] = None
    limit: Limit = 100
    cursor: Cursor = None

    @field_validator("label")
    @classmethod
    def _key_and_value(cls, labels: list[str]) -> list[str]:
        if not all(key and colon for key, colon, _ in (each.partition(":") for each in labels)):
            raise ValueError("write it as key:value, for instance room:kitchen")
        return labels

    @field_validator("label", "q", "device_type")
    @classmethod
    def _no_nul(cls, value: str | list[str] | None) -> str | list[str] | None:
        if value is not None and any("\x00" in each for each in value):
            raise ValueError("NUL characters match nothing")
        return value


class KeyOut(Model):
    prefix: str
    created_at: Time
    last_used_at: Time | None
    expires_at: Time | None

    @classmethod
    def of(cls, key: ApiKey) -> "KeyOut":
        return cls(
            prefix=key.prefix,
            created_at=key.created_at,
            last_used_at=key.last_used_at,
            expires_at=key.expires_at,
        )


class ListedKeyOut(KeyOut):
    id: int

    @classmethod
    def of(cls, key: ApiKey) -> "ListedKeyOut":
        return cls(
            id=key.id,
            prefix=key.prefix,
            created_at=key.created_at,
            last_used_at=key.last_used_at,
            expires_at=key.expires_at,
        )


class KeysOut(Model):
    items: list[ListedKeyOut]
    next_cursor: None = None


class NewKeyOut(Model):
    key: ListedKeyOut
    api_key: Annotated[str, Field(description="Shown this once. Keep it on the device.")]


class DeviceOut(Model):
    id: int
    user_id: int
    name: str
    description: str | None
    device_type: str | None
    location: str | None
    labels: dict[str, str]
    firmware_version: str | None
    hardware_version: str | None
    status: DeviceStatus
    is_online: bool
    last_seen: Time | None
    created_at: Time
    updated_at: Time
    key: KeyOut | None

    @classmethod
    def of(cls, view: DeviceView) -> "DeviceOut":
        device = view.device
        return cls(
            id=device.id,
            user_id=device.user_id,
            name=device.name,
            description=device.description,
            device_type=device.device_type,
            location=device.location,
            labels=device.labels,
            firmware_version=device.firmware_version,
            hardware_version=device.hardware_version,
            status=device.status,
            is_online=view.is_online,
            last_seen=device.last_seen,
            created_at=device.created_at,
            updated_at=device.updated_at,
            key=KeyOut.of(device.key) if device.key else None,
        )


class RegisteredDeviceOut(Model):
    device: DeviceOut
    api_key: Annotated[str, Field(description="Shown this once. Keep it on the device.")]

    @classmethod
    def of(cls, registered: RegisteredDevice) -> "RegisteredDeviceOut":
        view = DeviceView(registered.device, is_online=False)
        return cls(device=DeviceOut.of(view), api_key=registered.api_key)


class BulkResultOut(Model):
    """A device and its key, or `code` and `message` where it was refused."""

    index: Annotated[int, Field(description="The device's place in the request")]
    device: DeviceOut | None = None
    api_key: str | None = None
    code: str | None = None
    message: str | None = None


class BulkOut(Model):
    results: list[BulkResultOut]


class DevicesOut(Model):
    items: list[DeviceOut]
    next_cursor: str | None


class DeviceStatusOut(Model):
    device_id: int
    status: DeviceStatus
    is_online: bool
    last_seen: Time | None

    @classmethod
    def of(cls, view: DeviceView) -> "DeviceStatusOut":
        device: Device = view.device
        return cls(
            device_id=device.id,
            status=device.status,
            is_online=view.is_online,
            last_seen=device.last_seen,
        )


class OwnStatusOut(DeviceStatusOut):
    name: str


class CredentialsOut(Model):
    device_id: int
    name: str
    key: KeyOut

    @classmethod
    def of(cls, record: KeyRecord, now_ms: int) -> "CredentialsOut":
        """Asking with the key is its last use."""
        expires_ms = record.expires_ms
        key = KeyOut(
            prefix=record.prefix,
            created_at=from_ms(record.created_ms),
            last_used_at=from_ms(now_ms),
            expires_at=None if expires_ms is None else from_ms(expires_ms),
        )
        return cls(device_id=record.device_id, name=record.name, key=key)


class HeartbeatOut(Model):
    device_id: int
    timestamp: Time
