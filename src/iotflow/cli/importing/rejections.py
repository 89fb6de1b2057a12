"""What was rejected: all of it in a file, and a summary by reason."""

import csv
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import msgspec
from rich.table import Table

from iotflow.cli.client import os_reason
from iotflow.cli.importing.records import Rejected
from iotflow.cli.terminal import plain
from iotflow.errors import ConfigurationError

_HEADER = ("line", "time", "measurement", "code", "message")
_FIRST_LINES = 5
_MOST_REASONS = 100


class Reason(msgspec.Struct):
    """How often something was rejected for one reason, and where it was first."""

    code: str
    message: str
    count: int = 0
    lines: list[int] = msgspec.field(default_factory=list[int])

    def add(self, line: int) -> None:
        self.count += 1
        if len(self.lines) < _FIRST_LINES and line not in self.lines:
            self.lines.append(line)


class Rejections:
    """Writes rejections to a spool file and sums them up. Its length can be kept and restored.

    `kept_bytes` is how much of an earlier spool is to be gone on with.
    """

    def __init__(
        self, spool: Path | None, kept_bytes: int = 0, reasons: Iterable[Reason] = ()
    ) -> None:
        self._path = spool
        self.reasons = {reason.code: reason for reason in reasons}
        self._file: TextIO | None = None
        self._synced_bytes = 0
        if spool is not None:
            try:
                self._file = _opened(spool, kept_bytes)
            except OSError as error:
                raise ConfigurationError(
                    f"{spool} cannot be written ({os_reason(error)}). "
                    "Give --state for another folder."
                ) from None
            self._writer = csv.writer(self._file)
            if spool.stat().st_size == 0:
                self._writer.writerow(_HEADER)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def count(self) -> int:
        return sum(reason.count for reason in self.reasons.values())

    def add(self, rejected: Iterable[Rejected]) -> None:
        for each in rejected:
            room = each.code in self.reasons or len(self.reasons) < _MOST_REASONS
            code = each.code if room else "other"
            self.reasons.setdefault(code, Reason(code, each.message)).add(each.line)
            if self._file is not None:
                name = each.measurement or ""
                self._writer.writerow([each.line, each.time, name, each.code, each.message])

    def flush(self) -> int:
        """Bring what was written to the disk; returns the spool's length in bytes."""
        if self._file is None:
            return 0
        self._file.flush()
        length = os.fstat(self._file.fileno()).st_size
        if length != self._synced_bytes:
            os.fsync(self._file.fileno())
            self._synced_bytes = length
        return length

    def write_report(self, report: Path) -> None:
        """Copy the spool to where the user wants it.

        Raises:
            ConfigurationError: it cannot be written there.
        """
        if self._path is None:
            return
        self.flush()
        try:
            shutil.copyfile(self._path, report)
        except OSError as error:
            raise ConfigurationError(
                f"--report: cannot write {report} ({os_reason(error)})."
            ) from None

    def table(self) -> Table:
        """The summary, the most frequent reason first."""
        table = Table(
            "Reason", "Count", "First lines", "Why", title="Rejected", title_justify="left"
        )
        table.columns[1].justify = "right"
        for reason in sorted(self.reasons.values(), key=lambda each: -each.count):
            lines = ", ".join(f"{line}" for line in reason.lines)
            more = ", …" if reason.count > len(reason.lines) else ""
            table.add_row(reason.code, f"{reason.count:,}", lines + more, plain(reason.message))
        return table


def _opened(path: Path, kept_bytes: int) -> TextIO:
    file = path.open("a", encoding="utf-8", errors="backslashreplace", newline="")
    file.truncate(min(kept_bytes, path.stat().st_size))
    return file
