"""Who is asking: the dependencies that turn headers into callers.

Credentials are taken from headers alone, never from a URL. What a caller may do with them says
the operation's rule (http/authorisation.py).
"""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from iotflow.domain.callers import Caller, DeviceCaller, UserCaller
from iotflow.errors import NotAllowedError
from iotflow.http.authorisation import admit
from iotflow.http.runtime import RuntimeDep
from iotflow.runtime import Runtime

_device_key = APIKeyHeader(
    name="X-API-Key",
    scheme_name="DeviceKey",
    description="A device's key, `iotd_…`, as its registration showed it.",
    auto_error=False,
)
_bearer = HTTPBearer(
    scheme_name="Bearer",
    description=(
        "An access token, as `POST /api/v1/auth/login` gives it, or a personal token, `iotp_…`."
    ),
    auto_error=False,
)

device_key_scheme = Depends(_device_key)
"""For routes that read the key themselves: it puts the scheme into the OpenAPI document."""

Key = Annotated[str | None, Depends(_device_key)]
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def bearer_token(authorization: str | None) -> str | None:
    """The token of an Authorization header of that scheme."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


async def current_user(request: Request, runtime: RuntimeDep, bearer: Bearer) -> UserCaller:
    """A dependency: the user whom the operation's rule admits."""
    caller = await _admitted(request, runtime, bearer, None)
    if not isinstance(caller, UserCaller):
        raise NotAllowedError("A device cannot do this; its owner can.")
    return caller


async def current_device(request: Request, runtime: RuntimeDep, key: Key) -> DeviceCaller:
    """A dependency: the device that the operation's rule admits."""
    caller = await _admitted(request, runtime, None, key)
    if not isinstance(caller, DeviceCaller):
        raise NotAllowedError("Only a device can do this, with its key.")
    return caller


async def current_caller(request: Request, runtime: RuntimeDep, bearer: Bearer, key: Key) -> Caller:
    """A dependency: the user or device that the operation's rule admits."""
    return await _admitted(request, runtime, bearer, key)


async def _admitted(
    request: Request,
    runtime: Runtime,
    bearer: HTTPAuthorizationCredentials | None,
    key: str | None,
) -> Caller:
    token = None if bearer is None else bearer.credentials
    operation: str = request.scope["route"].name
    return await admit(runtime, operation, token, key, request.path_params)


CurrentUser = Annotated[UserCaller, Depends(current_user)]
CurrentDevice = Annotated[DeviceCaller, Depends(current_device)]
CurrentCaller = Annotated[Caller, Depends(current_caller)]
