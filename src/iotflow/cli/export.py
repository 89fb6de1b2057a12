"""`iotflow export`: the command's options. The work is in export_run.py."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from iotflow.cli.options import ApiKey, Password, Token, Url, Username


def export_command(
    device_id: Annotated[int, typer.Argument(min=1, help="Whose telemetry")],
    output: Annotated[Path, typer.Option("--output", "-o", dir_okay=False, help="The file")],
    start: Annotated[str, typer.Option(help="RFC 3339, or relative: -24h, -7d")] = "-24h",
    end: Annotated[str, typer.Option(help="As --start; not included")] = "now",
    measurement: Annotated[list[str] | None, typer.Option(help="Only these (repeatable)")] = None,
    format: Annotated[
        Literal["csv", "ndjson", "parquet"], typer.Option(help="parquet: iotflow[parquet]")
    ] = "csv",
    patience: Annotated[
        float, typer.Option(min=0, max=86_400, help="Seconds to go on trying without an answer")
    ] = 60,
    url: Url = "http://127.0.0.1:8000",
    api_key: ApiKey = None,
    token: Token = None,
    username: Username = None,
    password: Password = None,
) -> None:
    """Write a device's telemetry to a file, oldest first.

    The file appears when it is complete, and never half.
    """
    from iotflow.cli.client import Credentials
    from iotflow.cli.export_run import ExportOptions, run_export

    options = ExportOptions(
        device_id=device_id,
        output=output,
        start=start,
        end=end,
        measurements=tuple(measurement or ()),
        format=format,
        patience_s=patience,
        url=url,
        credentials=Credentials(api_key, token, username, password),
    )
    raise typer.Exit(run_export(options))
