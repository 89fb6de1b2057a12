"""The ASGI application: routers, errors, middleware, the OpenAPI document."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypedDict

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from pydantic import TypeAdapter
from starlette.types import ASGIApp

from iotflow import __version__
from iotflow.accounts.router import router as accounts
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
from iotflow.http.authorisation import may_refuse, require_rules
from iotflow.http.hot_routes import HotRoutes
from iotflow.http.middleware import LimitBody, Observe
from iotflow.http.proxies import TrustProxies
from iotflow.http.queries import refuse_unknown_parameters
from iotflow.http.responses import ProblemDocument
from iotflow.http.responses import problems as problems_of
from iotflow.jobs.router import router as jobs
from iotflow.observability.metrics import Metrics
from iotflow.runtime import Runtime, WorkerProcess, open_runtime
from iotflow.settings import Settings
from iotflow.telemetry import hot as telemetry_hot
from iotflow.telemetry.router import router as telemetry

MAX_BODY_BYTES = 1024 * 1024

_DESCRIPTION = """\
Telemetry for devices over HTTP.

1. `POST /api/v1/auth/register` and `POST /api/v1/auth/login` give you an access token.
2. `POST /api/v1/devices/register` gives a device its API key.
3. `POST /api/v1/telemetry` with that key stores what the device measures.
4. `GET /api/v1/telemetry/{device_id}` and its neighbours read it back.

Press **Authorize** to fill in the token and the key.
"""
_TAGS = [
    {"name": "accounts", "description": "Register, sign in, stay signed in, sign out."},
    {"name": "admin", "description": "What only administrators may do."},
    {"name": "devices", "description": "Devices, their status and their keys."},
    {"name": "groups", "description": "Devices in groups."},
    {"name": "jobs", "description": "How far work in the background is."},
    {"name": "telemetry", "description": "Points in and out: submit, latest, history, windows."},
    {"name": "events", "description": "What happened, to look back on."},
    {"name": "service", "description": "Health, status and metrics."},
]


class State(TypedDict):
    """What every request finds in `request.state`."""

    runtime: Runtime


def create_app(
    settings: Settings,
    on_ready: Callable[[Runtime], None] = lambda _: None,
    worker: WorkerProcess | None = None,
) -> ASGIApp:
    """The application for these settings. `on_ready` is called once it serves.

    `worker` says which of several processes this is.
    """
    metrics = Metrics()
    api = create_api(settings, metrics, on_ready, worker)
    # Outside of the framework, whose own layers cost a tenth of a submission.
    return HotRoutes(api, telemetry_hot.HOT_ROUTES + devices_hot.HOT_ROUTES, metrics)


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
    problems.install(app)
    _add_problem_schema(app)
    # The last one added runs first.
    app.add_middleware(LimitBody, max_bytes=MAX_BODY_BYTES)
    app.add_middleware(Observe, metrics=metrics, log=settings.log)
    if settings.trusted_proxies:
        app.add_middleware(TrustProxies, networks=settings.trusted_proxies)
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


def _add_problem_schema(app: FastAPI) -> None:
    """Put the schema that every error answer refers to into the document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schema = TypeAdapter(ProblemDocument).json_schema(
            ref_template="#/components/schemas/{model}"
        )
        components = document.setdefault("components", {}).setdefault("schemas", {})
        components.update(schema.pop("$defs", {}))
        components["ProblemDocument"] = schema
        _add_refusals(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _add_refusals(document: dict[str, Any]) -> None:
    """Say of every operation whose rule can refuse a known caller that it can."""
    for methods in document.get("paths", {}).values():
        for operation in methods.values():
            if may_refuse(operation["operationId"]):
                operation["responses"].setdefault("403", problems_of(403)[403])
