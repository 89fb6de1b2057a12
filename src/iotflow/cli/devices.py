"""`iotflow devices`: the options of its commands. The work is in devices_import.py."""

from pathlib import Path
from typing import Annotated

import typer

from iotflow.cli.options import Password, Token, Url, Username

devices_app = typer.Typer(help="Devices by the hundred.", no_args_is_help=True)


@devices_app.callback()
def _group() -> None:
    """Devices by the hundred."""


@devices_app.command("import")
def import_devices(
    file: Annotated[Path, typer.Argument(help="CSV with a header line; only `name` must be there")],
    url: Url = "http://127.0.0.1:8000",
    token: Token = None,
    username: Username = None,
    password: Password = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="Where the API keys go, for your eyes alone. Default: FILE with .keys.csv",
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write refused rows and why, as CSV")
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="Found from the header line where not given")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=1000, help="Devices a request")] = 500,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check, send nothing")
    ] = False,
) -> None:
    """Register the devices of a CSV file, and keep their keys in a file of mode 0600.

    Columns: name, description, device_type, location, firmware_version, hardware_version, and
    label:KEY for each label. Can be run again: names that the keys' file has are left out.
    Ends with status 0 if all are registered, 1 if some rows were refused, 2 if it could not be
    done or not be finished.
    """
    from iotflow.cli.devices_import import DeviceImport, run_import

    wanted = DeviceImport(
        file=file,
        url=url,
        token=token,
        username=username,
        password=password,
        keys=keys or file.with_suffix(".keys.csv"),
        report=report,
        delimiter=delimiter,
        batch_size=batch_size,
        dry_run=dry_run,
    )
    raise typer.Exit(run_import(wanted))
