"""`iotflow import csv`: reads a file, sends it in batches, and can be broken off at any time."""

from dataclasses import dataclass

import msgspec
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from iotflow.cli.client import (
    NOT_IOTFLOW,
    ApiClient,
    Credentials,
    ServerUnreachableError,
    require_directory,
)
from iotflow.cli.importing.options import ImportOptions
from iotflow.cli.importing.rejections import Rejections
from iotflow.cli.importing.sending import Sender
from iotflow.cli.importing.source import Reading, Source
from iotflow.cli.importing.state import State, StateFile, identity_of
from iotflow.cli.retrying import Retrying
from iotflow.cli.terminal import count, progress, results, say
from iotflow.errors import ConfigurationError, IoTFlowError

__all__ = ["ALL_ACCEPTED", "INTERRUPTED", "SOME_REJECTED", "ImportOptions", "run_import"]

ALL_ACCEPTED, SOME_REJECTED, INTERRUPTED = 0, 1, 130


def run_import(options: ImportOptions) -> int:
    """Import a file; returns the exit status.

    ALL_ACCEPTED; SOME_REJECTED where the rest is stored; INTERRUPTED after Ctrl-C.

    Raises:
        ConfigurationError: an option or the file cannot work; nothing was sent.
        ServerUnreachableError, RefusedError: run again, and it goes on where it stopped.
    """
    if options.report is not None:
        require_directory(options.report, "--report")
    source = Source(options)
    notes = progress()
    for column in source.left_out:
        say(notes, f"Not imported: {column}, which has no name.")
    if options.dry_run:
        return _dry_run(source, options)
    if not options.api_key:
        raise ConfigurationError("--api-key: give the device's key (IOTFLOW_API_KEY).")
    with ApiClient(options.url, Credentials(options.api_key)) as client:
        identity = identity_of(options, client.url, _device_id(client), options.api_key)
        files = StateFile(options.state_file)
        state = _state_for(State(identity), files, notes)
        with Rejections(files.spool, state.report_bytes, state.reasons) as rejections:
            return _Import(options, source, files, state, rejections, client).run()


class _OwnStatus(msgspec.Struct):
    device_id: int


def _device_id(client: ApiClient) -> int:
    """The id of the device whose key it is: a wrong key or address shows before anything else."""
    document = client.call("GET", "/devices/status")
    try:
        return msgspec.convert(document, _OwnStatus).device_id
    except msgspec.ValidationError:
        raise ServerUnreachableError(NOT_IOTFLOW) from None


def _state_for(fresh: State, files: StateFile, notes: Console) -> State:
    found = files.load()
    if found is None or found.identity != fresh.identity:
        if found is not None:
            say(notes, "The file, the options or the device changed: from the beginning.")
        files.save(fresh)
        return fresh
    if found.batches:
        say(notes, f"Going on after {count(found.accepted, 'point')} acknowledged before.")
    return found


def _dry_run(source: Source, options: ImportOptions) -> int:
    spool = options.report
    with Rejections(spool) as rejections:
        with source.reading() as reading, _Bar(options.file.stat().st_size) as bar:
            for batch in reading.batches():
                rejections.add(batch.rejected)
                bar.update(reading.position(), reading.tally.points, rejections.count)
        _report(reading, rejections)
    points, records = reading.tally.points, reading.tally.records
    say(
        results(),
        f"Dry run: {count(points, 'point')} in {count(records, 'record')} would be sent, "
        f"{rejections.count:,} rejected. Nothing was sent.",
    )
    return SOME_REJECTED if rejections.count else ALL_ACCEPTED


@dataclass(slots=True)
class _Import:
    """An import under way."""

    options: ImportOptions
    source: Source
    files: StateFile
    state: State
    rejections: Rejections
    client: ApiClient

    def run(self) -> int:
        try:
            reading = self._send_all()
        except KeyboardInterrupt:
            self._keep_report()
            say(progress(), f"Interrupted. {self._how_to_go_on()}")
            return INTERRUPTED
        except IoTFlowError as error:
            self._keep_report()
            error.message = f"{error.message} {self._how_to_go_on()}"
            raise
        _report(reading, self.rejections)
        self._keep_report()
        self.files.remove()
        say(results(), self._result(reading))
        return SOME_REJECTED if self.rejections.count else ALL_ACCEPTED

    def _send_all(self) -> Reading:
        with _Bar(self.options.file.stat().st_size) as bar, self.source.reading() as reading:
            retrying = Retrying(self.client.url, self.options.patience_s, bar.waiting)
            sender = Sender(self.client, retrying)
            for number, batch in enumerate(reading.batches(), start=1):
                if number > self.state.batches:
                    self.rejections.add(batch.rejected)
                    outcome = sender.send(batch.records)
                    self.rejections.add(outcome.rejected)
                    self._acknowledge(number, outcome.accepted)
                bar.update(reading.position(), self.state.accepted, self.rejections.count)
        return reading

    def _acknowledge(self, batches: int, accepted: int) -> None:
        self.state.batches = batches
        self.state.accepted += accepted
        self.state.report_bytes = self.rejections.flush()
        self.state.reasons = list(self.rejections.reasons.values())
        self.files.save(self.state)

    def _keep_report(self) -> None:
        if self.options.report is not None:
            self.rejections.write_report(self.options.report)

    def _how_to_go_on(self) -> str:
        accepted = count(self.state.accepted, "point")
        return f"{accepted} are acknowledged; run the same command again to go on from there."

    def _result(self, reading: Reading) -> str:
        accepted, rejected = count(self.state.accepted, "point"), self.rejections.count
        rows = count(reading.rows_read, "row")
        where = ""
        if rejected and self.options.report:
            where = f" See {self.options.report}."
        elif rejected:
            where = " Give --report FILE for each of them."
        return f"{accepted} accepted, {rejected:,} rejected, from {rows}.{where}"


def _report(reading: Reading, rejections: Rejections) -> None:
    out = results()
    out.print(reading.tally.table())
    for note in reading.clock_notes():
        say(out, note)
    if rejections.count:
        out.print(rejections.table())


class _Bar:
    """The progress bar; it measures in bytes of the file, and is silent without a terminal."""

    def __init__(self, file_bytes: int) -> None:
        console = progress()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[accepted]:,} points, {task.fields[rejected]:,} rejected"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(
            "Importing", total=max(1, file_bytes), accepted=0, rejected=0
        )

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def update(self, position: int, accepted: int, rejected: int) -> None:
        self._progress.update(
            self._task,
            completed=position,
            accepted=accepted,
            rejected=rejected,
            description="Importing",
        )

    def waiting(self, why: str, seconds: float) -> None:
        """Tell why nothing moves."""
        self._progress.update(self._task, description=f"Waiting {seconds:.0f} s: {why}")
