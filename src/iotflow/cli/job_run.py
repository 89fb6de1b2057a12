"""Begins a job in the service and follows it, for the commands that look after its stores."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from iotflow.cli.client import (
    ApiClient,
    Credentials,
    RefusedError,
    document_of,
    require_success,
    unreachable,
)
from iotflow.cli.terminal import plain, progress, results, say

_FIRST_POLL_S, _LONGEST_POLL_S = 0.2, 2.0
_PATIENCE_S = 60.0

Job = dict[str, Any]


@dataclass(frozen=True, slots=True)
class JobCommand:
    """What a command asks for. `path` and `body` begin a job; `job_id` follows one instead."""

    url: str
    credentials: Credentials
    path: str
    body: dict[str, Any]
    resume: str
    job_id: int | None = None
    wait: bool = True
    as_json: bool = False


def run_job(command: JobCommand, status_of: Callable[[Job], int] = lambda _: 0) -> int:
    """The command's exit status, once the job is done or, without waiting, begun."""
    told = progress()
    with ApiClient(command.url, command.credentials) as client:
        job_id = command.job_id
        if job_id is None:
            begun = client.call("POST", command.path, json=command.body)
            job_id = int(begun["job"]["id"])
        if not command.wait:
            say(results(), f"Job {job_id} has begun. Follow it: {command.resume} --job {job_id}")
            return 0
        try:
            job = _follow(client, job_id, told)
        except KeyboardInterrupt:
            hint = f"{command.resume} --job {job_id}"
            say(told, f"The job goes on in the service. Follow it again: {hint}")
            return 130
    if command.as_json:
        results().print_json(json.dumps(job))
    else:
        _show(results(), job)
    return status_of(job)


def _follow(client: ApiClient, job_id: int, told: Console) -> Job:
    """The job when it is done; until then how far it is, whenever that changes."""
    said, pause_s = "", _FIRST_POLL_S
    while True:
        job = _patiently(client, f"/jobs/{job_id}", told)
        if job["status"] == "done":
            return job
        line = _progress(job)
        if line != said:
            say(told, line)
            said = line
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, _LONGEST_POLL_S)


def _patiently(client: ApiClient, path: str, told: Console) -> Job:
    """A job's document. The service may be away for a while: the job outlives it."""
    until_s, away = time.monotonic() + _PATIENCE_S, False
    while True:
        try:
            answer = client.send("GET", path)
            if answer.status_code not in (429, 503):
                return document_of(require_success(answer))
        except httpx.TransportError as error:
            if time.monotonic() > until_s:
                raise unreachable(client.url, error) from None
        if time.monotonic() > until_s:
            raise RefusedError(503, "The service has not answered for a while. Try again later.")
        if not away:
            away = True
            say(told, "The service does not answer; waiting for it ...")
        time.sleep(_LONGEST_POLL_S)


def _progress(job: Job) -> str:
    counts = ", ".join(f"{name} {number}" for name, number in job["counts"].items() if number)
    if job["progress"] is None:
        return f"Job {job['id']} is {job['status']}; it begins at {job['due_at']}."
    done, total = job["progress"]["done"], job["progress"]["total"]
    return f"Job {job['id']}: {done} of {total} devices" + (f" ({counts})" if counts else "")


def _show(console: Console, job: Job) -> None:
    table = Table("", "", show_header=False, box=None)
    for name, number in job["counts"].items():
        table.add_row(plain(name.replace("_", " ")), "unknown" if number is None else f"{number:,}")
    console.print(table)
    if job["findings"]:
        found = Table("fault", "device", "what", "repaired")
        for each in job["findings"]:
            repaired = "yes" if each["repaired"] else "no"
            found.add_row(
                plain(each["fault"]), str(each["device_id"]), plain(each["detail"]), repaired
            )
        console.print(found)
