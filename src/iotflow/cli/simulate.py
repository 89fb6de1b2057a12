"""`iotflow simulate`: the command's options. The work is in simulate_run.py."""

from pathlib import Path
from typing import Annotated

import typer

from iotflow.cli.options import Url

FAULTS = "Faults"
Share = Annotated[float, typer.Option(min=0, max=1, rich_help_panel=FAULTS)]


def simulate_command(
    devices: Annotated[int, typer.Option(min=1, max=100_000, help="How many")] = 10,
    rate: Annotated[float, typer.Option(min=0.001, help="Submissions a second, all together")] = 10,
    duration: Annotated[float, typer.Option(min=0, help="Seconds; 0 until Ctrl-C")] = 0,
    seed: Annotated[int, typer.Option(help="The same seed makes the same measurements")] = 1,
    in_flight: Annotated[int, typer.Option(min=1, max=4096, help="Requests at once")] = 64,
    duplicates: Share = 0.01,
    late: Share = 0.02,
    dropouts: Share = 0.02,
    url: Url = "http://127.0.0.1:8000",
    username: Annotated[str, typer.Option("--username", "-u")] = "simulator",
    password: Annotated[
        str | None, typer.Option(help="Default: made at random and kept in the state file")
    ] = None,
    state: Annotated[
        Path, typer.Option(dir_okay=False, help="Keeps the devices' keys, mode 0600")
    ] = Path("simulator-state.json"),
) -> None:
    """Let a fleet of devices submit telemetry, with the faults that real fleets have.

    Registers its user and its devices (sim-0001 and on) where they are not there yet.
    Ends with status 1 if not every submission was acknowledged.
    """
    from iotflow.cli.fleet import Faults
    from iotflow.cli.simulate_run import SimulateOptions, run_simulation

    options = SimulateOptions(
        devices=devices,
        rate=rate,
        duration_s=duration,
        seed=seed,
        in_flight=in_flight,
        faults=Faults(duplicates, late, dropouts),
        url=url,
        username=username,
        password=password,
        state=state,
    )
    raise typer.Exit(run_simulation(options))
