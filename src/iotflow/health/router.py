"""Health, status and metrics over HTTP."""

import hmac
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from iotflow import __version__
from iotflow.errors import NotAuthenticatedError
from iotflow.health import examples
from iotflow.health.service import Database, Health, Status
from iotflow.http.authentication import bearer_token
from iotflow.http.paths import API
from iotflow.http.responses import problems
from iotflow.http.runtime import RuntimeDep
from iotflow.http.schemas import Model
from iotflow.http.schemas import Query as QueryModel
from iotflow.observability.metrics import CONTENT_TYPE, exposition
from iotflow.runtime import Runtime
from iotflow.stores.breaker import BreakerState

router = APIRouter(tags=["service"])
telemetry_router = APIRouter(prefix=f"{API}/telemetry", tags=["service"])


class DatabaseOut(Model):
    """`role` is what the store does, `backend` what really fills the role."""

    available: bool
    role: str
    backend: str
    latency_ms: float | None = None
    breaker: BreakerState | None = None


class DatabasesOut(Model):
    cassandra: DatabaseOut
    redis: DatabaseOut
    mongodb: DatabaseOut
    postgres: DatabaseOut


class StatusOut(Model):
    status: Status
    databases: DatabasesOut


class WorkerOut(Model):
    state: str
    restarts: int
    last_error: str | None


class QueueOut(Model):
    depth: int
    dropped: int


class HealthOut(Model):
    status: Status
    version: str
    uptime_s: int
    databases: DatabasesOut | None = None
    workers: dict[str, WorkerOut] | None = None
    queues: dict[str, QueueOut] | None = None


class LiveOut(Model):
    status: Literal["alive"] = "alive"


class ReadyOut(Model):
    status: Literal["ready", "not_ready"]
    reasons: list[str]


class ServiceOut(Model):
    name: str
    version: str
    links: dict[str, str]


class ServiceStatusOut(Model):
    name: str
    version: str
    status: Status
    uptime_s: int
    databases: DatabasesOut


class HealthParameters(QueryModel):
    detailed: bool = False


@router.get("/", summary="What is this?", responses=examples.SERVICE | problems(503))
async def service() -> ServiceOut:
    """What this is, and where to go from here."""
    links = {
        "docs": "/docs",
        "redoc": "/redoc",
        "openapi": "/openapi.json",
        "health": "/health",
        "status": "/status",
        "metrics": "/metrics",
        "api": "/api/v1",
    }
    return ServiceOut(name="IoTFlow", version=__version__, links=links)


@router.get(
    "/health",
    summary="Is it well?",
    response_model_exclude_unset=True,
    responses={
        **examples.HEALTH,
        503: {
            **examples.UNHEALTHY[503],
            "model": HealthOut,
            "description": "It cannot serve devices",
        },
    },
)
async def health(
    query: Annotated[HealthParameters, Query()], runtime: RuntimeDep, response: Response
) -> HealthOut:
    """How the service is; 503 where it cannot serve devices. `detailed` tells of its parts."""
    status = runtime.health.status()
    response.status_code = 503 if status is Status.UNHEALTHY else 200
    if not query.detailed:
        return HealthOut(status=status, version=__version__, uptime_s=runtime.uptime_s())
    workers = runtime.health.workers()
    return HealthOut(
        status=status,
        version=__version__,
        uptime_s=runtime.uptime_s(),
        databases=_databases(runtime.health, with_latency=False),
        workers={name: WorkerOut.model_validate(state) for name, state in workers.items()},
        queues={
            name: QueueOut(depth=depth, dropped=dropped)
            for name, depth, dropped in runtime.pipeline.queues()
        },
    )


@router.get("/health/live", summary="Does the process run?", responses=examples.LIVE)
async def live() -> LiveOut:
    """Answers while the process runs: for a liveness probe."""
    return LiveOut()


@router.get(
    "/health/ready",
    summary="Should requests come here?",
    responses={
        **examples.READY,
        503: {**examples.NOT_READY[503], "model": ReadyOut, "description": "Not now, and why"},
    },
)
async def ready(runtime: RuntimeDep, response: Response) -> ReadyOut:
    """Whether requests should be sent here, and if not, why: for a readiness probe."""
    reasons = runtime.health.not_ready_because()
    response.status_code = 503 if reasons else 200
    return ReadyOut(status="not_ready" if reasons else "ready", reasons=reasons)


@router.get(
    "/status", summary="Service and stores at a glance", responses=examples.STATUS | problems(503)
)
async def status(runtime: RuntimeDep) -> ServiceStatusOut:
    """The service and its stores at a glance."""
    return ServiceStatusOut(
        name="IoTFlow",
        version=__version__,
        status=runtime.health.status(),
        uptime_s=runtime.uptime_s(),
        databases=_databases(runtime.health, with_latency=False),
    )


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {
            "content": {
                "text/plain": {
                    **examples.METRICS[200]["content"]["text/plain"],
                    "schema": {"type": "string"},
                }
            }
        },
        **problems(401),
    },
)
async def metrics(request: Request, runtime: RuntimeDep) -> Response:
    """Metrics in Prometheus' text format. A setting can ask for a token, sent as a bearer."""
    token = runtime.settings.metrics.token
    if token is not None:
        sent = request.headers.get("authorization", "")
        wanted = f"Bearer {token.get_secret_value()}"
        if not hmac.compare_digest(sent.encode(), wanted.encode()):
            raise NotAuthenticatedError("Send the metrics token as Authorization: Bearer <token>.")
    siblings = runtime.siblings
    families = await siblings.all_families() if siblings else runtime.metrics.families()
    return Response(exposition(families), media_type=CONTENT_TYPE)


@telemetry_router.get(
    "/status",
    summary="The stores by their roles",
    response_model_exclude_unset=True,
    openapi_extra={"security": [{}, {"Bearer": []}]},
    responses=examples.TELEMETRY_STATUS,
)
async def telemetry_status(request: Request, runtime: RuntimeDep) -> StatusOut:
    """The stores by their roles. Admins also see how fast each answers."""
    return StatusOut(
        status=runtime.health.status(),
        databases=_databases(runtime.health, with_latency=await _is_admin(request, runtime)),
    )


async def _is_admin(request: Request, runtime: Runtime) -> bool:
    """A public call: bad credentials are as good as none."""
    token = bearer_token(request.headers.get("authorization"))
    if token is None:
        return False
    try:
        return (await runtime.bearers.caller(token)).is_admin
    except NotAuthenticatedError:
        return False


def _databases(health: Health, *, with_latency: bool) -> DatabasesOut:
    found: dict[str, Any] = {
        database.name: _database(database, with_latency) for database in health.databases()
    }
    return DatabasesOut(**found)


def _database(database: Database, with_latency: bool) -> DatabaseOut:
    shown = DatabaseOut(available=database.available, role=database.role, backend=database.backend)
    if not with_latency:
        return shown
    latency_ms = None if database.ping_s is None else round(database.ping_s * 1000, 3)
    return shown.model_copy(update={"latency_ms": latency_ms, "breaker": database.breaker})
