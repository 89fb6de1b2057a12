"""/jobs: how far work in the background is."""

from typing import Annotated

from fastapi import APIRouter, Path

from iotflow.http.authentication import CurrentUser
from iotflow.http.paths import API
from iotflow.http.responses import problems
from iotflow.http.runtime import RuntimeDep
from iotflow.jobs.schemas import JobOut

router = APIRouter(prefix=f"{API}/jobs", tags=["jobs"])

Id = Annotated[int, Path(ge=1, le=2**63 - 1)]


@router.get("/{job_id}", responses=problems(401, 404, 422, 429, 503))
async def get_job(job_id: Id, caller: CurrentUser, runtime: RuntimeDep) -> JobOut:
    """How far a deletion is, and what it has removed. A job can be read for thirty days."""
    return JobOut.of(await runtime.jobs.get(caller, job_id))
