"""The `iotflow` command."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from iotflow.errors import IoTFlowError

app = typer.Typer(
    name="iotflow",
    help="Telemetry for devices over HTTP.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
admin = typer.Typer(help="What only the operator may do.", no_args_is_help=True)
app.add_typer(admin, name="admin")

Host = Annotated[str | None, typer.Option(help="Address to listen on [IOTFLOW_HOST]")]
Port = Annotated[int | None, typer.Option(help="Port to listen on, 0 for any [IOTFLOW_PORT]")]
Workers = Annotated[int, typer.Option(min=1, help="Processes; more than one needs real servers")]
DataDir = Annotated[
    Path | None, typer.Option(help="Where embedded stores keep their files [IOTFLOW_DATA_DIR]")
]


@app.command()
def serve(
    host: Host = None,
    port: Port = None,
    workers: Workers = 1,
    data_dir: DataDir = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file; with it https alone [IOTFLOW_TLS__CERTIFICATE]")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="PEM file of its key [IOTFLOW_TLS__KEY]")
    ] = None,
) -> None:
    """Serve the API. Applies pending migrations first."""
    from iotflow.cli.serve import run

    run(
        host=host,
        port=port,
        workers=workers,
        data_dir=data_dir,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
    )


@app.command()
def migrate(data_dir: DataDir = None) -> None:
    """Bring the schemas of all SQL stores to the newest revision."""
    from iotflow.cli.operate import migrate_stores

    migrate_stores(data_dir)


@admin.command("create")
def create_admin(
    username: Annotated[str, typer.Argument(help="Its name")],
    email: Annotated[str, typer.Argument(help="Its e-mail address")],
    password: Annotated[
        str,
        typer.Option(
            prompt=True, hide_input=True, confirmation_prompt=True, envvar="IOTFLOW_ADMIN_PASSWORD"
        ),
    ],
    data_dir: DataDir = None,
) -> None:
    """Create an account with the role `admin`."""
    from iotflow.cli.operate import create_admin as create

    create(username, email, password, data_dir)


@admin.command("reset-password")
def reset_password(
    username: Annotated[str, typer.Argument(help="Its name or e-mail address")],
    password: Annotated[
        str,
        typer.Option(
            prompt=True, hide_input=True, confirmation_prompt=True, envvar="IOTFLOW_ADMIN_PASSWORD"
        ),
    ],
    data_dir: DataDir = None,
) -> None:
    """Give an account a new password. All its sessions and personal tokens end."""
    from iotflow.cli.operate import reset_password as reset

    reset(username, password, data_dir)


@admin.command("invite")
def invite(
    hours: Annotated[
        int | None, typer.Option(min=1, max=8760, help="Until it expires; a week if not set")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Print an invitation: it lets one person register, once."""
    from iotflow.cli.operate import invite as make

    make(hours, data_dir)


def _add_client_commands() -> None:
    from iotflow.cli.backup import backup_command, restore_command
    from iotflow.cli.bench import bench_command
    from iotflow.cli.cache import cache_app
    from iotflow.cli.devices import devices_app
    from iotflow.cli.events import events_app
    from iotflow.cli.export import export_command
    from iotflow.cli.import_csv import import_app
    from iotflow.cli.simulate import simulate_command
    from iotflow.cli.verify import verify_command

    app.add_typer(devices_app, name="devices")
    app.add_typer(import_app, name="import")
    app.command("export")(export_command)
    app.command("simulate")(simulate_command)
    app.command("bench")(bench_command)
    app.add_typer(events_app, name="events")
    app.add_typer(cache_app, name="cache")
    app.command("verify")(verify_command)
    app.command("backup")(backup_command)
    app.command("restore")(restore_command)


def main() -> None:
    """Run the command line; expected failures are one line on standard error."""
    _add_client_commands()
    try:
        app()
    except IoTFlowError as error:
        print(f"iotflow: {error.message}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


if __name__ == "__main__":
    main()
