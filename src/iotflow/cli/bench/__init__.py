"""`iotflow bench`: measures the service against a plain FastAPI route in the same run."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from iotflow.cli.bench.options import BenchOptions, Outputs, chosen, numbers, words

_MOST_CONNECTIONS = 4096


class What(StrEnum):
    """What is measured."""

    TABLE = "table"
    SCALE = "scale"
    SOAK = "soak"


Seconds = Annotated[float, typer.Option(min=0.2, max=600, help="Length of one slice")]
Slices = Annotated[int, typer.Option(min=1, max=100, help="Slices of each row; medians count")]
Connections = Annotated[
    list[str] | None,
    typer.Option("--connections", help="Connections at once, each measured", show_default="16,64"),
]
Devices = Annotated[
    int, typer.Option(min=1, max=1_000_000, help="Devices that submit; scale: the most")
]
OpenLoad = Annotated[
    float,
    typer.Option(
        min=0, max=0.95, help="Also measure latency at this share of the peak rate; 0 for not"
    ),
]
Rows = Annotated[
    list[str] | None, typer.Option("--row", "--rows", help="Only these rows, or curves")
]
Systems = Annotated[
    list[str] | None,
    typer.Option(
        "--system",
        "--systems",
        help="embedded; configured: the stores that the IOTFLOW_ settings name; postgres: all in "
        "IOTFLOW_REGISTRY__URL, no cache; naive: a small app on the same PostgreSQL. "
        "scale and soak: one.",
        show_default="embedded",
    ),
]
WarmUp = Annotated[
    float, typer.Option(min=0, max=600, help="Seconds of submits before stores that are servers")
]
Points = Annotated[
    int, typer.Option(min=10_000, max=100_000_000, help="scale: the most stored points")
]
Minutes = Annotated[float, typer.Option(min=0.01, help="soak: how long")]
Output = Annotated[Path | None, typer.Option(dir_okay=False, writable=True)]


def bench_command(
    what: Annotated[
        What,
        typer.Argument(
            help="table: all rows; scale: curves of one system; soak: only submit, watch memory"
        ),
    ] = What.TABLE,
    systems: Systems = None,
    rows: Rows = None,
    connections: Connections = None,
    quick: Annotated[bool, typer.Option("--quick", help="3 slices of 1 s, 100 devices")] = False,
    seconds: Seconds = 3.0,
    slices: Slices = 5,
    devices: Devices = 1000,
    open_load: OpenLoad = 0.5,
    warm_up: WarmUp = 20.0,
    points: Points = 1_000_000,
    minutes: Minutes = 10.0,
    json: Output = None,
    markdown: Output = None,
    svg: Output = None,
) -> None:
    """Measure throughput and latency, each as a ratio to a plain FastAPI route.

    Starts servers of its own on 127.0.0.1 with temporary data and rate limits that nobody reaches,
    and takes slices of all rows and systems in turn, so that a machine that slows down slows all of
    them. Lists may be given with commas or by repeating the option. Stores that are configured keep
    the devices and points of a run.
    """
    from iotflow.cli.bench.systems import SYSTEMS

    options = BenchOptions(
        systems=chosen("--systems", words(systems or ["embedded"]), SYSTEMS),
        rows=words(rows or []),
        seconds=1.0 if quick else seconds,
        slices=3 if quick else slices,
        connections=numbers("--connections", connections or ["16,64"], _MOST_CONNECTIONS),
        devices=min(devices, 100) if quick else devices,
        open_load=open_load,
        warmup_s=warm_up,
    )
    outputs = Outputs(json, markdown, svg)
    if what is What.TABLE:
        from iotflow.cli.bench.runner import bench

        raise typer.Exit(0 if bench(options, outputs) else 1)
    if what is What.SOAK:
        from iotflow.cli.bench.soak import soak

        raise typer.Exit(0 if soak(options, minutes) else 1)
    from iotflow.cli.bench.scale import scale

    raise typer.Exit(0 if scale(options, points, outputs) else 1)
