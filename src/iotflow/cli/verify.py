"""`iotflow verify`: the command's options. The work is done in the service."""

from typing import Annotated, Any

import typer

from iotflow.cli.options import Password, Token, Url, Username


def verify_command(
    start: Annotated[str, typer.Option("--from", help="RFC 3339, or relative: -24h, -7d")] = "-24h",
    end: Annotated[str, typer.Option("--to", help="As --from; not included")] = "now",
    device: Annotated[int | None, typer.Option(min=1, help="This device alone")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Put right what can be")] = False,
    job: Annotated[
        int | None, typer.Option(min=1, help="Follow a job that was begun before")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Follow the job to its end")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON")] = False,
    url: Url = "http://127.0.0.1:8000",
    token: Token = None,
    username: Username = None,
    password: Password = None,
) -> None:
    """Compare the stores: latest values, points and events, devices. Status 1 where they differ.

    Latest values of cache and store; each submission of points in the range with its event; the
    devices that have points with the registry's. What is found stays found with --repair, so its
    status is 1 once more. The service does it in the background; an administrator may ask for it.
    """
    from iotflow.cli.client import Credentials
    from iotflow.cli.job_run import JobCommand, run_job

    body: dict[str, Any] = {"start_time": start, "end_time": end, "repair": repair}
    command = JobCommand(
        url=url,
        credentials=Credentials(None, token, username, password),
        path="/admin/verifications",
        body=body if device is None else body | {"device_id": device},
        resume="iotflow verify",
        job_id=job,
        wait=wait,
        as_json=as_json,
    )
    raise typer.Exit(run_job(command, _status))


def _status(job: dict[str, Any]) -> int:
    from iotflow.maintenance.findings import is_clean

    return 0 if is_clean(job["counts"]) else 1
