"""`iotflow import csv`: the command's options. The work is in import_run.py."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from iotflow.cli.options import ApiKey, Url

import_app = typer.Typer(help="Bring in historical data.", no_args_is_help=True)

TIMES = "Times"
COLUMNS = "Columns"


@import_app.callback()
def _group() -> None:
    """Bring in historical data."""


@import_app.command("csv")
def import_csv(
    file: Annotated[Path, typer.Argument(help="With a header line")],
    url: Url = "http://127.0.0.1:8000",
    api_key: ApiKey = None,
    layout: Annotated[
        Literal["auto", "wide", "long"],
        typer.Option(help="wide: a column each measurement; long: a row each point"),
    ] = "auto",
    time_column: Annotated[
        str | None,
        typer.Option(
            help="Its name, where it is not found; DATE+CLOCK joins two", rich_help_panel=TIMES
        ),
    ] = None,
    time_format: Annotated[
        str | None,
        typer.Option(
            help="As strptime has it, e.g. '%d.%m.%Y %H:%M', or epoch-seconds",
            rich_help_panel=TIMES,
        ),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(
            help="IANA name (Europe/Berlin) or UTC; needed where times have no offset",
            rich_help_panel=TIMES,
        ),
    ] = None,
    missing_hour: Annotated[
        Literal["shift", "skip"],
        typer.Option(
            help="Local times that the clocks jumped over in spring: shift forward by the jump, "
            "or reject and report",
            rich_help_panel=TIMES,
        ),
    ] = "shift",
    repeated_hour: Annotated[
        Literal["in-order", "first", "second"],
        typer.Option(
            help="Local times that occur twice in autumn; in-order: the first pass through the "
            "hour in the file is the first in time",
            rich_help_panel=TIMES,
        ),
    ] = "in-order",
    measurement: Annotated[
        list[str] | None,
        typer.Option(
            help="wide: only these columns (repeatable). long: the column of names",
            rich_help_panel=COLUMNS,
        ),
    ] = None,
    value: Annotated[
        str | None, typer.Option(help="long: the column of values", rich_help_panel=COLUMNS)
    ] = None,
    unit_column: Annotated[
        str | None, typer.Option(help="long: the column of units", rich_help_panel=COLUMNS)
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OLD=NEW", help="Repeatable; OLD= leaves it out", rich_help_panel=COLUMNS
        ),
    ] = None,
    unit: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=UNIT", help="Repeatable", rich_help_panel=COLUMNS),
    ] = None,
    missing: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD",
            help="Cells that mean 'not measured', as empty ones do (NA, -999; repeatable)",
            rich_help_panel=COLUMNS,
        ),
    ] = None,
    decimal: Annotated[
        Literal[".", ","], typer.Option(help="Decimal mark", rich_help_panel=COLUMNS)
    ] = ".",
    delimiter: Annotated[
        str | None, typer.Option(help="Found from the header line where not given")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="UTF-8, or UTF-16 by its mark, where not given")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=5000, help="Records a request")] = 5000,
    patience: Annotated[
        float, typer.Option(min=0, max=86_400, help="Seconds to go on trying without an answer")
    ] = 60,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check, send nothing")
    ] = False,
    state: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Default: beside FILE, .import-state.json")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write rejected rows and why, as CSV")
    ] = None,
) -> None:
    """Send a CSV file's values to the device whose key is given, with their own times.

    Can be broken off and run again: it goes on after the last acknowledged batch.
    Ends with status 0 if all was accepted, 1 if some was rejected and the rest is stored,
    2 if it could not be done or not be finished, 130 after Ctrl-C.
    """
    from iotflow.cli.import_run import ImportOptions, run_import

    options = ImportOptions(
        file=file,
        url=url,
        api_key=api_key,
        layout=layout,
        time_column=time_column,
        time_format=time_format,
        timezone=timezone,
        missing_hour=missing_hour,
        repeated_hour=repeated_hour,
        measurement=tuple(measurement or ()),
        value=value,
        unit_column=unit_column,
        rename=tuple(rename or ()),
        unit=tuple(unit or ()),
        missing=tuple(missing or ()),
        decimal=decimal,
        delimiter=delimiter,
        encoding=encoding,
        batch_size=batch_size,
        patience_s=patience,
        dry_run=dry_run,
        state=state,
        report=report,
    )
    raise typer.Exit(run_import(options))
