"""`iotflow bench`: measures the service against a plain FastAPI route in the same run."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Seconds = Annotated[float, typer.Option(min=0.2, max=600, help="Length of one slice")]
Slices = Annotated[int, typer.Option(min=1, max=100, help="Slices of each row; medians count")]
Connections = Annotated[int, typer.Option(min=1, max=4096, help="Connections at once")]
Devices = Annotated[int, typer.Option(min=1, max=100_000, help="Devices that submit")]
OpenLoad = Annotated[
    float,
    typer.Option(
        min=0, max=0.95, help="Also measure latency at this share of the peak rate; 0 for not"
    ),
]
Rows = Annotated[list[str] | None, typer.Option("--row", "--rows", help="Only these rows")]
Stores = Annotated[
    Literal["embedded", "configured"],
    typer.Option(help="configured: measure on the stores that the IOTFLOW_ settings name"),
]
Soak = Annotated[float, typer.Option(min=0, help="Only submit, for so long, and watch memory")]
Output = Annotated[Path | None, typer.Option(dir_okay=False, writable=True)]


def bench_command(
    rows: Rows = None,
    quick: Annotated[bool, typer.Option("--quick", help="3 slices of 1 s, 100 devices")] = False,
    seconds: Seconds = 3.0,
    slices: Slices = 5,
    connections: Connections = 32,
    devices: Devices = 1000,
    open_load: OpenLoad = 0.5,
    stores: Stores = "embedded",
    soak_minutes: Soak = 0,
    json: Output = None,
    markdown: Output = None,
    svg: Output = None,
) -> None:
    """Measure throughput and latency, each as a ratio to a plain FastAPI route.

    Starts servers of its own on 127.0.0.1 with temporary data and no rate limits, and
    takes slices of all rows in turn, so that a machine that slows down slows all rows.
    """
    from iotflow.cli.bench.runner import BenchOptions, Outputs, bench
    from iotflow.cli.bench.soak import soak

    options = BenchOptions(
        rows=tuple(rows or ()),
        seconds=1.0 if quick else seconds,
        slices=3 if quick else slices,
        connections=connections,
        devices=min(devices, 100) if quick else devices,
        open_load=open_load,
        configured=stores == "configured",
    )
    if soak_minutes:
        raise typer.Exit(0 if soak(options, soak_minutes) else 1)
    raise typer.Exit(0 if bench(options, Outputs(json, markdown, svg)) else 1)
