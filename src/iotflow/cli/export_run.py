"""`iotflow export`: a device's telemetry to a file that appears when it is complete."""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from iotflow.cli.client import ApiClient, Credentials, os_reason, require_directory
from iotflow.cli.exporting.pages import History
from iotflow.cli.exporting.writers import Format, require_pyarrow, writer_for
from iotflow.cli.retrying import Retrying
from iotflow.cli.terminal import count, progress, results, say
from iotflow.errors import ConfigurationError

DONE, INTERRUPTED = 0, 130


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """The options of `iotflow export`, as they were given."""

    device_id: int
    output: Path
    start: str = "-24h"
    end: str = "now"
    measurements: tuple[str, ...] = ()
    format: Format = "csv"
    url: str = "http://127.0.0.1:8000"
    credentials: Credentials
    patience_s: float = 60.0


def run_export(options: ExportOptions) -> int:
    """Export a device's points; returns the exit status. `output` is replaced as a whole or not.

    Raises:
        ConfigurationError: an option cannot work, or the file cannot be written.
        ServerUnreachableError, RefusedError: the points could not be read.
    """
    require_directory(options.output, "--output")
    if options.format == "parquet":
        require_pyarrow()
    try:
        with ApiClient(options.url, options.credentials) as client:
            written = _export(options, client)
    except KeyboardInterrupt:
        say(progress(), f"Interrupted. {options.output} was not written.")
        return INTERRUPTED
    say(results(), f"{count(written, 'point')} written to {options.output}.")
    return DONE


def _export(options: ExportOptions, client: ApiClient) -> int:
    console, written = progress(), 0
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[points]:,} points"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task("Exporting", total=1.0, points=0)

    def waiting(why: str, seconds: float) -> None:
        bar.update(task, description=f"Waiting {seconds:.0f} s: {why}")

    retrying = Retrying(client.url, options.patience_s, waiting)
    history = History(client, retrying, options.device_id, options.measurements)
    with bar, _replacing(options.output) as file:
        writer = writer_for(options.format, file)
        for page in history.pages(options.start, options.end):
            writer.write(page.points)
            written += len(page.points)
            bar.update(task, completed=page.share, points=written, description="Exporting")
        writer.finish()
    return written


@contextmanager
def _replacing(path: Path) -> Generator[BinaryIO]:
    """A file that takes its place at `path` when the block ends well, and else is gone."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with fresh.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written ({os_reason(error)}).") from None
    finally:
        with suppress(OSError):
            fresh.unlink()
