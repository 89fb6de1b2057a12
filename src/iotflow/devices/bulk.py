"""Registering many devices at once, each judged by itself."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from iotflow.devices.schemas import BulkResultOut, DeviceRegistration, RegisteredDeviceOut
from iotflow.devices.service import RegisteredDevice
from iotflow.errors import FieldError
from iotflow.http.problems import field_error
from iotflow.stores.registry.protocol import NewDevice

_registration = TypeAdapter(DeviceRegistration)


def judge_registration(raw: Any, user_id: int) -> NewDevice | FieldError:
    """A device to register, or what is wrong with the first field at fault."""
    try:
        body = _registration.validate_python(raw)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return field_error({**found, "loc": ("device", *found["loc"])})
    return NewDevice(user_id=user_id, **body.model_dump())


def bulk_result(index: int, outcome: RegisteredDevice | FieldError) -> BulkResultOut:
    """What became of one device."""
    if isinstance(outcome, FieldError):
        message = f"{outcome.field}: {outcome.message}"
        return BulkResultOut(index=index, code=outcome.code, message=message)
    shown = RegisteredDeviceOut.of(outcome)
    return BulkResultOut(index=index, device=shown.device, api_key=shown.api_key)
