"""Registers the devices of a CSV file in batches, and keeps each batch's keys before the next."""

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import msgspec

from iotflow.cli.client import (
    NOT_IOTFLOW,
    ApiClient,
    Credentials,
    ServerUnreachableError,
    os_reason,
    require_directory,
)
from iotflow.cli.terminal import count, progress, quoted, results, say
from iotflow.errors import ConfigurationError

_FIELDS = (
    "name",
    "description",
    "device_type",
    "location",
    "firmware_version",
    "hardware_version",
)
_LABEL = "label:"
_KEY_COLUMNS = ("device_id", "name", "api_key")
_REPORT_COLUMNS = ("line", "name", "code", "message")
_MAX_CELL = 64 * 1024


@dataclass(frozen=True, slots=True)
class DeviceImport:
    """What the command was asked for."""

    file: Path
    url: str
    token: str | None
    username: str | None
    password: str | None
    keys: Path
    report: Path | None
    delimiter: str | None
    batch_size: int
    dry_run: bool


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device to register, and the line that it came from."""

    line: int
    device: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.device.get("name", ""))


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that was refused, and why."""

    row: DeviceRow
    code: str
    message: str


class _Registered(msgspec.Struct):
    id: int
    name: str


class _Result(msgspec.Struct):
    index: int
    device: _Registered | None = None
    api_key: str | None = None
    code: str | None = None
    message: str | None = None


class _Results(msgspec.Struct):
    results: list[_Result]


def run_import(wanted: DeviceImport) -> int:
    """Do it, and say what was done; returns the exit status.

    Raises:
        ConfigurationError: a file cannot be read or written, or is no such table.
        RefusedError, ServerUnreachableError: the server; what was registered is in the keys' file.
    """
    require_directory(wanted.keys, "--keys")
    if wanted.report is not None:
        require_directory(wanted.report, "--report")
    known = _known_names(wanted.keys)
    rows = list(read_rows(wanted.file, wanted.delimiter))
    fresh = [row for row in rows if row.name not in known]
    if len(fresh) < len(rows):
        say(progress(), f"{count(len(rows) - len(fresh), 'device')} in {wanted.keys} already.")
    if wanted.dry_run:
        say(results(), f"{count(len(fresh), 'device')} to register. Nothing was sent.")
        return 0
    refused = _register(wanted, fresh)
    _report(wanted.report, refused)
    say(
        results(),
        f"{count(len(fresh) - len(refused), 'device')} registered, "
        f"{count(len(refused), 'row')} refused. Keys: {wanted.keys}",
    )
    return 1 if refused else 0


def read_rows(file: Path, delimiter: str | None = None) -> Iterator[DeviceRow]:
    """The rows of a table, empty cells left out.

    Raises:
        ConfigurationError: it cannot be read, or its header is not that of such a table.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            yield from _rows_of(text, delimiter)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read ({os_reason(error)}).") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file} is not UTF-8 text.") from None
    except csv.Error as error:
        raise ConfigurationError(f"{file} is no CSV file ({error}).") from None


def _rows_of(text: TextIO, delimiter: str | None) -> Iterator[DeviceRow]:
    header = text.readline(_MAX_CELL)
    text.seek(0)
    table = csv.reader(text, delimiter=_delimiter(header, delimiter), strict=True)
    columns = [name.strip() for name in next(table, list[str]())]
    _check_columns(columns)
    for cells in table:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(columns):
            raise ConfigurationError(f"Line {table.line_num} has more cells than the header line.")
        yield DeviceRow(table.line_num, _device(dict(zip(columns, cells, strict=False))))


def _delimiter(header: str, given: str | None) -> str:
    if given is None:
        return max(",;\t", key=header.count)
    if len(given) != 1:
        raise ConfigurationError("--delimiter: give one character.")
    return given


def _check_columns(columns: Sequence[str]) -> None:
    if "name" not in columns:
        raise ConfigurationError("The header line has no column 'name'.")
    for column in columns:
        if column not in _FIELDS and not column.startswith(_LABEL):
            allowed = ", ".join(_FIELDS)
            raise ConfigurationError(
                f"There is no column {quoted(column)}. Use {allowed}, or label:KEY."
            )
    if len(set(columns)) < len(columns):
        raise ConfigurationError("The header line names a column twice.")


def _device(cells: Mapping[str, str]) -> dict[str, Any]:
    filled = {column: cell.strip() for column, cell in cells.items() if cell.strip()}
    device: dict[str, Any] = {name: filled[name] for name in _FIELDS if name in filled}
    labels = {
        column.removeprefix(_LABEL): cell
        for column, cell in filled.items()
        if column.startswith(_LABEL)
    }
    return device | ({"labels": labels} if labels else {})


def _known_names(keys: Path) -> set[str]:
    """The names in the keys' file of an earlier run."""
    try:
        with keys.open(encoding="utf-8", newline="") as text:
            table = csv.DictReader(text)
            if tuple(table.fieldnames or ()) != _KEY_COLUMNS:
                raise ConfigurationError(f"--keys: {keys} is there and holds something else.")
            return {row["name"] for row in table}
    except FileNotFoundError:
        return set()
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(f"--keys: {keys} cannot be read.") from None


def _register(wanted: DeviceImport, rows: Sequence[DeviceRow]) -> list[Refusal]:
    credentials = Credentials(
        token=wanted.token, username=wanted.username, password=wanted.password
    )
    refused: list[Refusal] = []
    remaining = iter(rows)
    with ApiClient(wanted.url, credentials) as client, _opened_keys(wanted.keys) as keys:
        writer = csv.writer(keys)
        while batch := list(islice(remaining, wanted.batch_size)):
            for row, result in zip(batch, _sent(client, batch), strict=True):
                if result.device is not None:
                    writer.writerow((result.device.id, result.device.name, result.api_key))
                else:
                    why = (result.code or "refused", result.message or "")
                    refused.append(Refusal(row, *why))
            # A key is shown once: it is on the disk before the next batch is asked for.
            keys.flush()
            os.fsync(keys.fileno())
    return refused


def _sent(client: ApiClient, batch: Sequence[DeviceRow]) -> list[_Result]:
    """What became of each. Never sent twice: the second time would make other devices."""
    document = client.call("POST", "/devices/bulk", json={"devices": [row.device for row in batch]})
    try:
        done = msgspec.convert(document, _Results).results
    except msgspec.ValidationError:
        raise ServerUnreachableError(NOT_IOTFLOW) from None
    if [result.index for result in done] != list(range(len(batch))):
        raise ServerUnreachableError(NOT_IOTFLOW)
    return done


def _opened_keys(path: Path) -> TextIO:
    """The keys' file for more of them; nobody else may read it."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        # It may be an older file, or the process's mask may be odd.
        path.chmod(0o600)
        file = os.fdopen(descriptor, "a", encoding="utf-8", newline="")
        if file.tell() == 0:
            csv.writer(file).writerow(_KEY_COLUMNS)
    except OSError as error:
        raise ConfigurationError(
            f"--keys: {path} cannot be written ({os_reason(error)})."
        ) from None
    return file


def _report(path: Path | None, refused: Sequence[Refusal]) -> None:
    rows = [(each.row.line, each.row.name, each.code, each.message) for each in refused]
    if path is None:
        for line, name, _, message in rows[:20]:
            say(progress(), f"Line {line}, {quoted(name)}: {message}")
        return
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([_REPORT_COLUMNS, *rows])
    except OSError as error:
        raise ConfigurationError(
            f"--report: {path} cannot be written ({os_reason(error)})."
        ) from None
