"""Device configuration over HTTP: desired by the owner, reported by the device."""

import re
from collections.abc import Collection
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from iotflow.devices import config_bodies, examples
from iotflow.devices.config_bodies import (
    CONFIG_SCHEMA,
    REPORT_SCHEMA,
    DeviceConfigOut,
    OwnConfigOut,
    ReportedConfigOut,
    body_of,
)
from iotflow.devices.etags import NOT_MODIFIED, IfMatch, IfNoneMatch, is_known
from iotflow.http.authentication import CurrentDevice, CurrentUser
from iotflow.http.examples import shown
from iotflow.http.paths import API
from iotflow.http.responses import problems
from iotflow.http.runtime import RuntimeDep

router = APIRouter(prefix=f"{API}/devices", tags=["devices"])

Id = Annotated[int, Path(ge=1, le=2**63 - 1)]
_TAG = re.compile(r'"(\d{1,18})"')


# These stand before /devices/{device_id}.
@router.get(
    "/config",
    summary="Get one's own configuration",
    response_model=OwnConfigOut,
    responses={**examples.OWN_CONFIG, **NOT_MODIFIED, **problems(401, 403, 429, 503)},
)
async def own_config(
    caller: CurrentDevice, runtime: RuntimeDep, if_none_match: IfNoneMatch = None
) -> Response:
    """The configuration that a device should apply. Ask with If-None-Match: 304 costs little."""
    found = await runtime.configs.own(caller)
    headers = {"ETag": _etag(found.version)}
    if is_known(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return _json(config_bodies.own_document(found), headers)


@router.put(
    "/config",
    summary="Report an applied configuration",
    response_model=ReportedConfigOut,
    responses=examples.REPORTED | problems(400, 401, 403, 413, 415, 422, 429, 503),
    openapi_extra=shown(body_of(REPORT_SCHEMA), examples.REPORT),
)
async def report_own_config(
    caller: CurrentDevice, runtime: RuntimeDep, request: Request
) -> Response:
    """Report the configuration that a device has applied, and of which version it is."""
    version, config = await config_bodies.read_report(request)
    found = await runtime.configs.report(caller, version, config)
    return _json(config_bodies.reported_document(found))


@router.get(
    "/{device_id}/config",
    summary="Get a device's configuration",
    response_model=DeviceConfigOut,
    responses=examples.BOTH_CONFIGS | problems(401, 404, 422, 429, 503),
)
async def device_config(device_id: Id, caller: CurrentUser, runtime: RuntimeDep) -> Response:
    """What is desired of a device and what it reports. The ETag is the desired version."""
    found = await runtime.configs.get(caller, device_id)
    return _json(config_bodies.config_document(found), {"ETag": _etag(found.version)})


@router.put(
    "/{device_id}/config",
    summary="Set a device's configuration",
    response_model=DeviceConfigOut,
    responses=examples.BOTH_CONFIGS | problems(400, 401, 404, 412, 413, 415, 422, 429, 503),
    openapi_extra=shown(body_of(CONFIG_SCHEMA), examples.CONFIG),
)
async def set_device_config(
    device_id: Id,
    caller: CurrentUser,
    runtime: RuntimeDep,
    request: Request,
    if_match: IfMatch = None,
) -> Response:
    """Set what a device should apply: any JSON object of up to 64 KiB, whole.

    The version rises with every change. The device asks for it with `GET /devices/config` and
    says with `PUT /devices/config` what it has applied.
    """
    config = await config_bodies.read_config(request)
    found = await runtime.configs.put(caller, device_id, config, _versions(if_match))
    return _json(config_bodies.config_document(found), {"ETag": _etag(found.version)})


def _etag(version: int) -> str:
    return f'"{version}"'


def _versions(if_match: str | None) -> Collection[int] | None:
    """The versions that an If-Match names; None for any."""
    if if_match is None or if_match.strip() == "*":
        return None
    tags = (_TAG.fullmatch(each.strip()) for each in if_match.split(","))
    return {int(tag[1]) for tag in tags if tag}


def _json(body: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(body, media_type="application/json", headers=headers)
