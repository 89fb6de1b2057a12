"""`iotflow events`: the options of its commands. The work is done in the service."""

from typing import Annotated

import typer

from iotflow.cli.options import Password, Token, Url, Username

events_app = typer.Typer(help="The event log.", no_args_is_help=True)


@events_app.callback()
def _group() -> None:
    """The event log."""


@events_app.command("replay")
def replay(
    start: Annotated[
        str | None, typer.Option("--from", help="RFC 3339, or relative: -24h, -7d")
    ] = None,
    end: Annotated[str, typer.Option("--to", help="As --from; not included")] = "now",
    device: Annotated[int | None, typer.Option(min=1, help="This device alone")] = None,
    late: Annotated[
        str,
        typer.Option(
            help="How much older than their submission points may be (1h, 7d; of a batch that "
            "skips a whole day before that, the rest is not found); `any` looks through all "
            "points, which takes longer"
        ),
    ] = "any",
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
    """Make events of submissions again that the event log does not have.

    The range is that of the submissions' times. Nothing is doubled, however often it is done.
    What a later submission has overwritten, and `metadata`, cannot come back. The service does it
    in the background and goes on after a restart; an administrator may ask for it.
    """
    from iotflow.cli.client import Credentials
    from iotflow.cli.job_run import JobCommand, run_job
    from iotflow.cli.spans import seconds_of
    from iotflow.errors import ConfigurationError

    if start is None and job is None:
        raise ConfigurationError("--from: say since when (-24h, say), or follow a job with --job.")
    body = {"start_time": start, "end_time": end}
    chosen = {"device_id": device, "late": None if late == "any" else seconds_of("--late", late)}
    command = JobCommand(
        url=url,
        credentials=Credentials(None, token, username, password),
        path="/admin/replays",
        body=body | {name: value for name, value in chosen.items() if value is not None},
        resume="iotflow events replay",
        job_id=job,
        wait=wait,
        as_json=as_json,
    )
    raise typer.Exit(run_job(command))
