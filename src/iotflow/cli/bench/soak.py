"""A long run of submits at full speed: does the server's memory stay flat?"""

import contextlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from msgspec.structs import replace
from rich.console import Console

from iotflow.cli.bench.fleet import Fleet
from iotflow.cli.bench.generator import ended_by_sigterm, generate
from iotflow.cli.bench.options import BenchError, BenchOptions
from iotflow.cli.bench.plan import Plan, Result
from iotflow.cli.bench.scenarios import IOTFLOW, ROWS
from iotflow.cli.bench.servers import HOST, Server
from iotflow.cli.bench.systems import Launcher, system
from iotflow.cli.bench.usage import usage_of
from iotflow.errors import ConfigurationError

_SLICE_S = 15.0
_ALLOWED_BYTES = 16_000_000
_ALLOWED_SHARE = 0.10


@dataclass(frozen=True, slots=True)
class Sample:
    """The state after a slice."""

    elapsed_s: float
    rss_bytes: int
    result: Result


def growth_bytes(samples: Sequence[Sample]) -> float | None:
    """How much the median memory of the last third lies above that of the middle third.

    The first third is left out: caches and pools fill. None for fewer than six samples.
    """
    if len(samples) < 6:
        return None
    third = len(samples) // 3
    sizes = [sample.rss_bytes for sample in samples]
    return median(sizes[-third:]) - median(sizes[third : 2 * third])


def is_flat(samples: Sequence[Sample]) -> bool:
    """Whether memory has settled: it grows by less than a tenth and less than 16 MB."""
    growth = growth_bytes(samples)
    if growth is None:
        return True
    return growth < min(_ALLOWED_BYTES, _ALLOWED_SHARE * samples[0].rss_bytes + 1e6)


def soak(options: BenchOptions, minutes: float) -> bool:
    """Submit to one system and print its server's memory. True where it stayed flat.

    Raises:
        ConfigurationError: not one system.
        BenchError: the server did not start, or there is no /proc to read memory from.
    """
    if len(options.systems) != 1:
        raise ConfigurationError("--systems: soak takes one")
    console, measured = Console(), system(options.systems[0])
    with (
        ended_by_sigterm(),
        tempfile.TemporaryDirectory(prefix="iotflow-soak-") as scratch,
        contextlib.ExitStack() as stack,
    ):
        fleet = Launcher(Path(scratch), stack, options.devices).start(measured, IOTFLOW)
        samples = _sample(fleet, options, minutes * 60, console)
    return _verdict(samples, console)


def _sample(fleet: Fleet, options: BenchOptions, length_s: float, console: Console) -> list[Sample]:
    plan = _submits(fleet, options, min(_SLICE_S, length_s))
    samples: list[Sample] = []
    begin = time.monotonic()
    console.print("minutes    RSS MB   submits/s   p99 ms   failures")
    while (elapsed_s := time.monotonic() - begin) < length_s:
        left_s = max(1.0, length_s - elapsed_s)
        result = generate(replace(plan, seconds=min(plan.seconds, left_s)))
        sample = Sample(time.monotonic() - begin, _rss_bytes(fleet.server), result)
        samples.append(sample)
        console.print(_line(sample))
    return samples


def _submits(fleet: Fleet, options: BenchOptions, seconds: float) -> Plan:
    row = next(row for row in ROWS if row.name == "submit")
    return Plan(
        host=HOST,
        port=fleet.server.port,
        requests=row.requests(fleet),
        connections=options.connections[0],
        seconds=seconds,
        warmup_s=0.0,
    )


def _rss_bytes(server: Server) -> int:
    usage = usage_of({server.pid})
    if usage is None:
        raise BenchError("The server's memory cannot be read: it ended, or there is no /proc.")
    return usage.rss_bytes


def _line(sample: Sample) -> str:
    result = sample.result
    failures = sum(result.failures.values()) + result.unanswered
    return (
        f"{sample.elapsed_s / 60:7.1f} {sample.rss_bytes / 1e6:9.1f} {result.rate:11,.0f} "
        f"{result.latency.p99:8.1f} {failures:10,}"
    )


def _verdict(samples: Sequence[Sample], console: Console) -> bool:
    growth = growth_bytes(samples)
    failed = sum(sum(s.result.failures.values()) + s.result.unanswered for s in samples)
    total = sum(sample.result.answered for sample in samples)
    flat = is_flat(samples)
    grown = "too short to tell" if growth is None else f"{growth / 1e6:+.1f} MB"
    console.print(f"{total:,} submits, {failed:,} failures. Middle to last third: {grown}.")
    console.print("Memory is flat." if flat else "Memory GROWS.")
    return flat and not failed
