"""What a store tells of itself for metrics: sizes, rates and delays, as its server counts them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol


class Statistic(NamedTuple):
    """One number. A counter's `name` is without `_total`. `help` is the same for a name always."""

    name: str
    help: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()
    is_counter: bool = False


class TellsStatistics(Protocol):
    """Anything that has statistics."""

    async def statistics(self) -> list[Statistic]:
        """What can be told now; what the server does not know or does not allow is left out.

        Raises:
            StoreUnavailableError: the server does not answer.
        """
        ...


def each(
    name: str, help_text: str, label: str, values: Mapping[str, float], *, is_counter: bool = False
) -> Iterable[Statistic]:
    """One statistic for each of some named values."""
    for key, value in values.items():
        yield Statistic(name, help_text, float(value), ((label, key),), is_counter)


def file_statistics(path: Path) -> list[Statistic]:
    """Sizes of an SQLite file and of its write-ahead log; blocks for as long as the disk does."""
    sizes: dict[str, float] = {}
    for kind, suffix in (("data", ""), ("wal", "-wal")):
        try:
            sizes[kind] = path.with_name(path.name + suffix).stat().st_size
        except OSError:
            continue
    return list(each("iotflow_sqlite_bytes", "Size of a store's files", "file", sizes))
