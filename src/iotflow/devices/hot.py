"""The call of devices that shows how fast keys are checked, close to the bytes."""

from iotflow.devices.schemas import CredentialsOut
from iotflow.domain.callers import DeviceCaller
from iotflow.http.authorisation import admit
from iotflow.http.hot_routes import Answer, HotRequest, HotRoute
from iotflow.http.paths import API


async def credentials(request: HotRequest) -> Answer | None:
    """GET /devices/credentials."""
    if request.api_key is None or request.scope["query_string"]:
        return None
    runtime = request.runtime
    caller = await admit(runtime, "own_credentials", None, request.api_key)
    if not isinstance(caller, DeviceCaller):
        return None
    body = CredentialsOut.of(caller.key, runtime.now_ms()).model_dump_json()
    return Answer(200, body.encode())


HOT_ROUTES = (HotRoute("GET", f"{API}/devices/credentials", credentials),)
