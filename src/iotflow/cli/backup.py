"""`iotflow backup` and `iotflow restore`: their options. The work is in backup_run.py and
restore_run.py."""

from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[
    Path | None, typer.Option(help="Where embedded stores keep their files [IOTFLOW_DATA_DIR]")
]


def backup_command(
    directory: Annotated[
        Path, typer.Argument(file_okay=False, help="The backup; it must not be there yet")
    ],
    data_dir: DataDir = None,
) -> None:
    """Back up the embedded stores, while they are served or not.

    The backup is a directory for its owner's eyes alone: it holds the secret that signs tokens,
    password hashes, and everything else. It appears when it is complete, and never half.
    """
    from iotflow.cli.backup_run import run_backup
    from iotflow.cli.operate import load_settings

    raise typer.Exit(run_backup(load_settings(data_dir), directory))


def restore_command(
    directory: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="What `iotflow backup` has made")
    ],
    data_dir: DataDir = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what is there; it is set aside, not deleted")
    ] = False,
) -> None:
    """Put a backup in the place of the embedded stores, which must not be served meanwhile."""
    from iotflow.cli.operate import load_settings
    from iotflow.cli.restore_run import run_restore

    raise typer.Exit(run_restore(load_settings(data_dir), directory, force=force))
