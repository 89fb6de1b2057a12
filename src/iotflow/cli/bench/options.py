"""What the command was asked for."""

from dataclasses import dataclass
from pathlib import Path

from iotflow.errors import ConfigurationError, IoTFlowError


class BenchError(IoTFlowError):
    """The benchmark cannot go on."""

    code = "bench_failed"


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """`rows` empty means all. `warmup_s` is for stores that are servers of their own.

    `guide_rate` is the fixed rate of the row that measures a submission's latency at the guide's
    throughput.
    """

    systems: tuple[str, ...]
    rows: tuple[str, ...]
    seconds: float
    slices: int
    connections: tuple[int, ...]
    devices: int
    open_load: float
    warmup_s: float
    guide_rate: float = 1000.0


@dataclass(frozen=True, slots=True)
class Outputs:
    """Files to write the results to."""

    json: Path | None = None
    markdown: Path | None = None
    svg: Path | None = None


def words(given: list[str]) -> tuple[str, ...]:
    """What an option was given, repeated or with commas, each once."""
    found = (word.strip() for each in given for word in each.split(","))
    return tuple(dict.fromkeys(word for word in found if word))


def numbers(option: str, given: list[str], most: int) -> tuple[int, ...]:
    """The same, as whole numbers from 1 to `most`.

    Raises:
        ConfigurationError: one is none, or there is none.
    """
    found = words(given)
    if not found or not all(it.isascii() and it.isdigit() and 1 <= int(it) <= most for it in found):
        raise ConfigurationError(f"{option}: whole numbers from 1 to {most:,}, with commas between")
    return tuple(sorted({int(it) for it in found}))


def chosen(option: str, given: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    """The names that were given, in the order in which they are known; all where none was.

    Raises:
        ConfigurationError: one is not known.
    """
    if unknown := [name for name in given if name not in known]:
        raise ConfigurationError(
            f"{option}: there is no {unknown[0]!r}; choose from {', '.join(known)}"
        )
    return tuple(name for name in known if not given or name in given)
