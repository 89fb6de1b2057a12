"""`iotflow cache`: the options of its commands. The work is done in the service."""

from typing import Annotated

import typer

from iotflow.cli.options import Password, Token, Url, Username

cache_app = typer.Typer(help="The cache.", no_args_is_help=True)


@cache_app.callback()
def _group() -> None:
    """The cache."""


@cache_app.command("warm")
def warm(
    seen_since: Annotated[
        str | None, typer.Option(help="Devices heard of since: -24h, or RFC 3339. Default: all")
    ] = None,
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
    """Fill the cache with latest values and keys, so that nobody has to wait for the stores.

    The service does it in the background; an administrator may ask for it.
    """
    from iotflow.cli.client import Credentials
    from iotflow.cli.job_run import JobCommand, run_job

    command = JobCommand(
        url=url,
        credentials=Credentials(None, token, username, password),
        path="/admin/warmings",
        body={} if seen_since is None else {"seen_since": seen_since},
        resume="iotflow cache warm",
        job_id=job,
        wait=wait,
        as_json=as_json,
    )
    raise typer.Exit(run_job(command))
