"""Who is asking: the dependencies that turn headers into callers.

Credentials are taken from headers alone, never from a URL.
"""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from iotflow.domain.callers import Caller, DeviceCaller, UserCaller
from iotflow.errors import NotAuthenticatedError
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
    description="An access token, as `POST /api/v1/auth/login` gives it.",
    auto_error=False,
)

device_key_scheme = Depends(_device_key)
"""For routes that read the key themselves: it puts the scheme into the OpenAPI document."""

Key = Annotated[str | None, Depends(_device_key)]
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def identify_user(runtime: Runtime, token: str, *, reading: bool) -> UserCaller:
    """The user of an access token, within their rate limit."""
    caller = UserCaller(await runtime.accounts.user_of(token))
    await runtime.limiter.check("read" if reading else "write", caller.subject)
    return caller


async def identify_device(runtime: Runtime, key: str, *, reading: bool) -> DeviceCaller:
    """The device of a key, within its rate limit. It has been heard of by that."""
    caller = DeviceCaller(runtime.keys.known(key) or await runtime.keys.authenticate(key))
    await runtime.limiter.check("read" if reading else "write", caller.subject)
    runtime.pipeline.note_seen(caller.key.key_id, runtime.now_ms())
    return caller


async def identify(
    runtime: Runtime, token: str | None, key: str | None, *, reading: bool
) -> Caller:
    """A user or a device. With both credentials sent, the user's counts."""
    if token is not None:
        return await identify_user(runtime, token, reading=reading)
    if key is not None:
        return await identify_device(runtime, key, reading=reading)
    raise NotAuthenticatedError(
        "Send an access token (Authorization: Bearer <token>) or a device's key (X-API-Key)."
    )


def bearer_token(authorization: str | None) -> str | None:
    """The token of an Authorization header of that scheme."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


async def current_user(request: Request, runtime: RuntimeDep, bearer: Bearer) -> UserCaller:
    """A dependency: see `identify_user`."""
    if bearer is None:
        raise NotAuthenticatedError(
            "Sign in, and send the access token as Authorization: Bearer <token>."
        )
    return await identify_user(runtime, bearer.credentials, reading=_reads(request))


async def current_device(request: Request, runtime: RuntimeDep, key: Key) -> DeviceCaller:
    """A dependency: see `identify_device`."""
    if key is None:
        raise NotAuthenticatedError("Send the device's key as X-API-Key: iotd_…")
    return await identify_device(runtime, key, reading=_reads(request))


async def current_caller(request: Request, runtime: RuntimeDep, bearer: Bearer, key: Key) -> Caller:
    """A dependency: see `identify`."""
    token = None if bearer is None else bearer.credentials
    return await identify(runtime, token, key, reading=_reads(request))


def _reads(request: Request) -> bool:
    return request.method in ("GET", "HEAD")


CurrentUser = Annotated[UserCaller, Depends(current_user)]
CurrentDevice = Annotated[DeviceCaller, Depends(current_device)]
CurrentCaller = Annotated[Caller, Depends(current_caller)]
