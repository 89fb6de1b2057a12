"""What a verification has found, within bounds, as its job keeps it."""

from dataclasses import replace
from enum import StrEnum
from typing import Any

from iotflow.domain.jobs import Job
from iotflow.jobs.worker import counted

_MAX_LISTED = 200


class Fault(StrEnum):
    """What can be wrong; each is a count of the job, too."""

    CACHE = "latest_in_cache"
    INDEX = "latest_in_store"
    EVENTS = "events_missing"
    DEVICE = "unknown_device"


def clean() -> dict[str, int | None]:
    """The counts of a verification that begins."""
    names = ("devices", "points", "submissions", "cached", *Fault, "repaired")
    return {str(name): 0 for name in names}


def noted(
    job: Job, fault: Fault, device_id: int, detail: str, *, number: int = 1, repaired: bool
) -> Job:
    """The job with a finding more; after the first ones they are counted alone."""
    listed: list[dict[str, Any]] = list(job.report.get("findings", []))
    omitted: int = job.report.get("omitted", 0)
    if len(listed) < _MAX_LISTED:
        finding = {"fault": str(fault), "device_id": device_id, "detail": detail}
        listed.append(finding | {"repaired": repaired})
    else:
        omitted += 1
    job = replace(job, report={"findings": listed, "omitted": omitted})
    return counted(job, **{str(fault): number, "repaired": number if repaired else 0})


def is_clean(counts: dict[str, int | None]) -> bool:
    return not any(counts.get(str(fault)) for fault in Fault)
