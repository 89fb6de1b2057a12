"""The ASGI application: routers, errors, middleware, the OpenAPI document."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypedDict

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp

from iotflow import __version__
from iotflow.accounts.router import router as accounts
from iotflow.accounts.schemas import TokenRefusalOut
from iotflow.accounts.users_router import router as users
from iotflow.admin.router import router as admin
from iotflow.devices import hot as devices_hot
from iotflow.devices.config_router import router as device_configs
from iotflow.devices.router import router as devices
from iotflow.events.router import router as events
from iotflow.groups.router import router as groups
from iotflow.health.router import router as health
from iotflow.health.router import telemetry_router as telemetry_health
from iotflow.http import problems
from iotflow.http.admission import Admission
from iotflow.http.authorisation import may_refuse, require_rules
from iotflow.http.connections import Guard
from iotflow.http.cors import AllowOrigins
from iotflow.http.hot_routes import HotRoutes
from iotflow.http.middleware import LimitBody, Observe
from iotflow.http.pages import serve_pages
from iotflow.http.proxies import TrustProxies
from iotflow.http.queries import refuse_unknown_parameters
from iotflow.http.responses import REFERENCE, ProblemDocument
from iotflow.http.responses import problems as problems_of
from iotflow.http.security import PagePolicy, SecurityHeaders
from iotflow.jobs.router import router as jobs
from iotflow.observability.metrics import Metrics
from iotflow.runtime import Runtime, WorkerProcess, open_runtime
from iotflow.settings import Settings
from iotflow.telemetry import hot as telemetry_hot
from iotflow.telemetry.router import router as telemetry
from iotflow.telemetry.schemas import NothingAcceptedOut

MAX_BODY_BYTES = 1024 * 1024

_PROBLEMS = (ProblemDocument, NothingAcceptedOut, TokenRefusalOut)

_DESCRIPTION = """\
Devices send measurements with an API key; their owners read latest values, history, statistics
and charts. What was answered **201** is durable.

## From nothing to a chart
1. `POST /api/v1/auth/register`: an account.
2. Press **Authorize** and sign in under *SignIn*, with name and password alone.
3. `POST /api/v1/devices/register`: the answer has the device's API key, this once. Press
   **Authorize** again and put it under *DeviceKey*.
4. `POST /api/v1/telemetry` as the device.
5. `GET /api/v1/telemetry/{device_id}/latest` and its neighbours read it back.

## What holds for every call
- **Times** come out as RFC 3339 in UTC with milliseconds. They go in as RFC 3339 with an offset or
  as epoch milliseconds; queries also take `-24h`, `-15m`, `-7d` and `now`. Ranges are [start, end).
- **Lists** come in pages: repeat the query with `next_cursor` as `cursor` until it is null.
- **Errors** are `application/problem+json`. `code` is stable and for programs, `detail` for people,
  `errors` names the fields at fault, `request_id` finds the request in the log.
- **Unknown** parameters and fields are refused, except inside `data` and `metadata`.
- **Limits**: 429 and 503 say in `Retry-After` how many seconds to wait.
- What belongs to someone else is answered as what does not exist: **404**.
"""
_TAGS = [
    {
        "name": "accounts",
        "description": "Register, sign in, stay signed in, sign out; personal tokens for programs.",
    },
    {
        "name": "devices",
        "description": (
            "Devices with their status, keys and configuration. Most calls are for a device's "
            "owner (*Bearer*); `/devices/status`, `/credentials`, `/heartbeat` and `/config` are "
            "for the device itself (*DeviceKey*)."
        ),
    },
    {
        "name": "telemetry",
        "description": (
            "Points in, with a device's key; and out: latest values, history, statistics by "
            "window, thinned charts. A device reads its own, an owner all of theirs."
        ),
    },
    {"name": "groups", "description": "Named collections of devices, for lists and latest values."},
    {
        "name": "events",
        "description": "What happened, to look back on: submissions, sign-ins, changes.",
    },
    {
        "name": "jobs",
        "description": "How far work in the background is: deletions, replays, verifications.",
    },
    {"name": "admin", "description": "What only administrators may do, with all users' devices."},
    {"name": "service", "description": "Health, status and metrics, for whoever operates this."},
]


class State(TypedDict):
    """What every request finds in `request.state`."""

    runtime: Runtime


def create_app(
    settings: Settings,
    on_ready: Callable[[Runtime], None] = lambda _: None,
    worker: WorkerProcess | None = None,
    guard: Guard | None = None,
) -> ASGIApp:
    """The application for these settings. `on_ready` is called once it serves.

    `worker` says which of several processes this is, `guard` who looks after its connections.
    """
    metrics = Metrics(settings.log.slow_query_ms / 1000)
    if guard is not None:
        metrics.add_source(guard.metrics)
    security = SecurityHeaders(settings.server.hsts_s)
    api = create_api(settings, metrics, on_ready, worker)
    server = settings.server
    admission = Admission(
        security,
        limit=server.max_in_flight,
        max_mean_s=server.max_mean_ms / 1000,
        max_queue_s=server.max_queue_ms / 1000,
        max_put_off_s=server.max_put_off_ms / 1000,
    )
    metrics.add_source(admission.metrics)
    # Outside of the framework, whose own layers cost a tenth of a submission.
    hot = telemetry_hot.HOT_ROUTES + devices_hot.HOT_ROUTES
    app: ASGIApp = HotRoutes(api, hot, metrics, security, admission)
    if settings.cors.origins:
        app = AllowOrigins(app, settings.cors.origins, settings.cors.max_age_s, security)
    if settings.trusted_proxies:
        app = TrustProxies(app, settings.trusted_proxies)
    return app


def create_api(
    settings: Settings,
    metrics: Metrics,
    on_ready: Callable[[Runtime], None] = lambda _: None,
    worker: WorkerProcess | None = None,
) -> FastAPI:
    """The framework's part: all routes, the OpenAPI document, and the lifespan."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[State]:
        async with open_runtime(settings, metrics, worker) as runtime:
            on_ready(runtime)
            yield {"runtime": runtime}

    app = FastAPIOffline(
        title="IoTFlow",
        version=__version__,
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        lifespan=lifespan,
        separate_input_output_schemas=False,
        generate_unique_id_function=_operation_id,
        redirect_slashes=False,
        swagger_ui_parameters={"persistAuthorization": True, "tryItOutEnabled": True},
    )
    _include_routers(app)
    serve_pages(app)
    problems.install(app)
    _add_problem_schemas(app)
    # The last one added runs first.
    app.add_middleware(LimitBody, max_bytes=MAX_BODY_BYTES)
    app.add_middleware(PagePolicy)
    security = SecurityHeaders(settings.server.hsts_s)
    app.add_middleware(Observe, metrics=metrics, log=settings.log, security=security)
    return app


def _include_routers(app: FastAPI) -> None:
    checked = [Depends(refuse_unknown_parameters)]
    # /telemetry/status stands before /telemetry/{device_id}, /devices/config before {device_id}.
    routers = (
        accounts,
        users,
        admin,
        device_configs,
        devices,
        events,
        groups,
        jobs,
        telemetry_health,
        telemetry,
        health,
    )
    require_rules(routers)
    for router in routers:
        app.include_router(router, dependencies=checked, responses=problems_of(422))


def _operation_id(route: APIRoute) -> str:
    """The endpoint's name: what generated clients call their methods."""
    return route.name


def _add_problem_schemas(app: FastAPI) -> None:
    """Put the schemas that error answers refer to into the document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        _, described = models_json_schema(
            [(model, "validation") for model in _PROBLEMS], ref_template=REFERENCE
        )
        components = document.setdefault("components", {}).setdefault("schemas", {})
        components.update(described["$defs"])
        _add_refusals(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _add_refusals(document: dict[str, Any]) -> None:
    """Say of every operation whose rule can refuse a known caller that it can."""
    for methods in document.get("paths", {}).values():
        for operation in methods.values():
            if may_refuse(operation["operationId"]):
                operation["responses"].setdefault("403", problems_of(403)[403])
