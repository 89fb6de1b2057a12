"""Options that several commands share. Every one can come from the environment."""

from typing import Annotated

import typer

SERVER = "Server"

Url = Annotated[
    str, typer.Option(envvar="IOTFLOW_URL", help="Where IoTFlow serves", rich_help_panel=SERVER)
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key", "-k", envvar="IOTFLOW_API_KEY", help="A device's key", rich_help_panel=SERVER
    ),
]
Token = Annotated[
    str | None,
    typer.Option(envvar="IOTFLOW_TOKEN", help="A personal or access token", rich_help_panel=SERVER),
]
Username = Annotated[
    str | None, typer.Option("--username", "-u", help="Sign in with it", rich_help_panel=SERVER)
]
Password = Annotated[
    str | None, typer.Option(help="Asked for where it is not given", rich_help_panel=SERVER)
]
