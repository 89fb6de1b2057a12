"""/jobs: how far work in the background is."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from iotflow.domain.jobs import JobKind
from iotflow.http.authentication import CurrentUser
from iotflow.http.paths import API
from iotflow.http.responses import problems
from iotflow.http.runtime import RuntimeDep
from iotflow.jobs import examples
from iotflow.jobs.schemas import BegunOut, JobListQuery, JobOut, JobsOut
from iotflow.maintenance.schemas import NewReplay, NewVerification, NewWarming
from iotflow.stores.registry.protocol import JobQuery

router = APIRouter(prefix=API)

Id = Annotated[int, Path(ge=1, le=2**63 - 1)]


@router.get(
    "/jobs",
    tags=["jobs"],
    summary="List jobs",
    responses=examples.JOBS | problems(401, 422, 429, 503),
)
async def list_jobs(
    query: Annotated[JobListQuery, Query()], caller: CurrentUser, runtime: RuntimeDep
) -> JobsOut:
    """The jobs that you have begun, newest first. An administrator sees all, those too that the
    service began by itself: it replays events that it had to drop while their store was away.
    """
    filters = ["jobs", caller.user.id, query.kind]
    before_id = runtime.cursors.decode(filters, query.cursor, int) if query.cursor else None
    by = None if caller.is_admin else caller.user.id
    jobs, more = await runtime.jobs.page(JobQuery(query.limit, by, query.kind, before_id))
    return JobsOut(
        items=[JobOut.of(job) for job in jobs],
        next_cursor=runtime.cursors.encode(filters, jobs[-1].id) if more else None,
    )


@router.get(
    "/jobs/{job_id}",
    tags=["jobs"],
    summary="Follow a job",
    responses=examples.JOB | problems(401, 404, 422, 429, 503),
)
async def get_job(job_id: Id, caller: CurrentUser, runtime: RuntimeDep) -> JobOut:
    """How far a job is, and what it has done. It can be read for thirty days after its end.

    What is being deleted is gone for every caller already; this is about its stored data.
    """
    return JobOut.of(await runtime.jobs.get(caller, job_id))


@router.post(
    "/admin/replays",
    tags=["admin"],
    summary="Replay lost events",
    status_code=202,
    responses=examples.BEGUN | problems(400, 401, 403, 413, 415, 422, 429, 503),
    openapi_extra=examples.REPLAY,
)
async def begin_replay(body: NewReplay, caller: CurrentUser, runtime: RuntimeDep) -> BegunOut:
    """Make the events of submissions again that the event log does not have.

    The range is that of the submissions' times. What is there already stays as it is, so a replay
    can be repeated. What a later submission has overwritten, and `metadata`, cannot come back.
    """
    now_ms = runtime.now_ms()
    max_future_ms = runtime.settings.ingest.max_future_s * 1000
    wanted = body.parameters(now_ms, max_future_ms)
    until_ms = wanted.to_us // 1000
    kind, device_id = JobKind.EVENT_REPLAY, body.device_id
    return BegunOut.of(
        await runtime.maintenance.begin(
            caller, kind, wanted, device_id=device_id, until_ms=until_ms
        )
    )


@router.post(
    "/admin/verifications",
    tags=["admin"],
    summary="Compare the stores",
    status_code=202,
    responses=examples.BEGUN | problems(400, 401, 403, 413, 415, 422, 429, 503),
    openapi_extra=examples.VERIFICATION,
)
async def begin_verification(
    body: NewVerification, caller: CurrentUser, runtime: RuntimeDep
) -> BegunOut:
    """Compare the latest values of cache and store, points with events, and the telemetry's
    devices with the registry's. The job's counts and findings say what is wrong.

    With `repair` what is wrong is put right, but for points whose device the registry does not
    know: perhaps it is the registry that is too old.
    """
    now_ms = runtime.now_ms()
    wanted = body.parameters(now_ms)
    kind, device_id = JobKind.VERIFICATION, body.device_id
    return BegunOut.of(
        await runtime.maintenance.begin(caller, kind, wanted, device_id=device_id, until_ms=now_ms)
    )


@router.post(
    "/admin/warmings",
    tags=["admin"],
    summary="Warm the cache",
    status_code=202,
    responses=examples.BEGUN | problems(400, 401, 403, 413, 415, 422, 429, 503),
    openapi_extra=examples.WARMING,
)
async def begin_warming(body: NewWarming, caller: CurrentUser, runtime: RuntimeDep) -> BegunOut:
    """Fill the cache with latest values and keys, before all devices and readers ask for them."""
    wanted = body.parameters(runtime.now_ms())
    return BegunOut.of(await runtime.maintenance.begin(caller, JobKind.CACHE_WARMING, wanted))
