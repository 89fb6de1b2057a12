"""Runs the rows: starts the servers, takes slices of every row in turn, collects figures."""

import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import httpx
import msgspec
from rich.console import Console
from rich.progress import Progress

from iotflow.cli.bench.plan import Plan, Requests, Result, TimedRequests, payloads
from iotflow.cli.bench.scenarios import PLAIN, ROWS, Fleet, Row, SetupFailedError, prepare
from iotflow.cli.bench.servers import (
    HOST,
    Server,
    ServerFailedError,
    iotflow_server,
    uvicorn_server,
)
from iotflow.cli.bench.tables import Slice, Table, machine
from iotflow.cli.bench.usage import usage_of
from iotflow.errors import ConfigurationError, IoTFlowError

_WARMUP_S = 0.5
_GENERATOR_GRACE_S = 30.0


class BenchError(IoTFlowError):
    """The benchmark cannot go on."""

    code = "bench_failed"


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What the command was asked for. No `rows` means all."""

    rows: tuple[str, ...]
    seconds: float
    slices: int
    connections: int
    devices: int
    open_load: float
    configured: bool


@dataclass(frozen=True, slots=True)
class Outputs:
    """Files to write the results to."""

    json: Path | None = None
    markdown: Path | None = None
    svg: Path | None = None


@dataclass(slots=True)
class Lane:
    """A row while it is measured. `requests` move on with what was issued."""

    row: Row
    fleet: Fleet
    requests: Requests
    slices: list[Slice] = field(default_factory=list[Slice])

    def plan(self, options: BenchOptions, rate: float | None) -> Plan:
        """The next slice of this row."""
        return Plan(
            host=HOST,
            port=self.fleet.server.port,
            requests=self.requests,
            connections=options.connections,
            seconds=options.seconds,
            warmup_s=_WARMUP_S,
            rate=rate,
        )

    def moved_on(self, issued: int) -> None:
        """Later slices take times that no slice has taken."""
        if isinstance(self.requests, TimedRequests):
            self.requests = self.requests.after(issued)


def bench(options: BenchOptions, outputs: Outputs) -> bool:
    """Measure, print and write. False where some answers were failures.

    Raises:
        ConfigurationError: there is no such row.
        BenchError: a server did not start or refused the setting up.
    """
    from iotflow.cli.bench.report import publish

    rows, console = _chosen(options.rows), Console()
    with ended_by_sigterm(), tempfile.TemporaryDirectory(prefix="iotflow-bench-") as scratch:
        table = _measure(rows, options, Path(scratch), console)
    publish(table, console, outputs)
    return not any(line.failures for line in table.lines)


def _measure(
    rows: tuple[Row, ...], options: BenchOptions, scratch: Path, console: Console
) -> Table:
    with contextlib.ExitStack() as stack:
        try:
            lanes = _set_up(rows, options, scratch, stack, console)
        except (ServerFailedError, SetupFailedError, httpx.HTTPError) as error:
            raise BenchError(str(error)) from None
        _take_slices(lanes, options, console)
        rss = {lane.row.name: _rss_bytes(lane.fleet.server) for lane in lanes}
    return Table.of(
        {lane.row: lane.slices for lane in lanes}, rss, machine(), msgspec.to_builtins(options)
    )


def _chosen(names: tuple[str, ...]) -> tuple[Row, ...]:
    """The rows to measure; the yardstick is always one of them."""
    known = {row.name: row for row in ROWS}
    wanted = [name.strip() for given in names for name in given.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in known]:
        raise ConfigurationError(
            f"--rows: there is no {unknown[0]!r}; choose from {', '.join(known)}"
        )
    return tuple(row for row in ROWS if not wanted or row.name in {*wanted, PLAIN})


def _set_up(
    rows: tuple[Row, ...],
    options: BenchOptions,
    scratch: Path,
    stack: contextlib.ExitStack,
    console: Console,
) -> list[Lane]:
    fleets: dict[str, Fleet] = {}
    for name in dict.fromkeys(row.server for row in rows):
        with console.status(f"starting and filling the server '{name}'"):
            fleets[name] = _start(name, options, scratch, stack)
    lanes = [Lane(row, fleets[row.server], row.requests(fleets[row.server])) for row in rows]
    for lane in lanes:
        _probe(lane)
    return lanes


def _start(name: str, options: BenchOptions, scratch: Path, stack: contextlib.ExitStack) -> Fleet:
    package = __package__ or ""
    if name == PLAIN:
        app = f"{package}.plain_app:create_app"
        return Fleet(stack.enter_context(uvicorn_server(name, app, scratch, "--factory")))
    if name == "echo":
        return Fleet(stack.enter_context(uvicorn_server(name, f"{package}.echo_app:app", scratch)))
    settings = {"IOTFLOW_CACHE__URL": "none://"} if name == "uncached" else {}
    server = iotflow_server(name, scratch, settings, configured=options.configured)
    return prepare(stack.enter_context(server), options.devices)


def _probe(lane: Lane) -> None:
    """One request by an ordinary client: a row that measures refusals measures nothing."""
    head, _, body = next(payloads(lane.requests)).partition(b"\r\n\r\n")
    request_line, *header_lines = head.decode().split("\r\n")
    method, target, _ = request_line.split(" ")
    headers = dict(line.split(": ", 1) for line in header_lines)
    url = lane.fleet.server.base_url + target
    answer = httpx.request(method, url, headers=headers, content=body, timeout=30)
    lane.moved_on(1)
    if answer.status_code != lane.row.expect:
        raise SetupFailedError(
            f"Row '{lane.row.name}': {answer.status_code} instead of {lane.row.expect}: "
            f"{answer.text[:300]}"
        )


def _take_slices(lanes: list[Lane], options: BenchOptions, console: Console) -> None:
    """A B C A B C …, so that a machine that slows down slows every row."""
    kinds = 2 if options.open_load else 1
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("measuring", total=options.slices * len(lanes) * kinds)
        for _ in range(options.slices):
            for lane in lanes:
                progress.update(task, description=lane.row.title)
                closed = _slice(lane, options, None)
                progress.advance(task)
                opened = None
                if options.open_load:
                    opened = _slice(lane, options, max(1.0, closed[0].rate * options.open_load))[0]
                    progress.advance(task)
                lane.slices.append(Slice(closed[0], closed[1], opened))


def _slice(lane: Lane, options: BenchOptions, rate: float | None) -> tuple[Result, float | None]:
    """One slice by a generator process, and the server's CPU seconds per request meanwhile."""
    before = usage_of(lane.fleet.server.pid)
    result = generate(lane.plan(options, rate))
    after = usage_of(lane.fleet.server.pid)
    lane.moved_on(result.issued)
    if before is None or after is None or not result.issued:
        return result, None
    return result, (after.cpu_s - before.cpu_s) / result.issued


def generate(plan: Plan) -> Result:
    """Carry out a plan in a process of its own.

    Raises:
        BenchError: the generator failed, or did not come to an end in time.
    """
    limit_s = plan.warmup_s + plan.seconds + plan.drain_s + _GENERATOR_GRACE_S
    command = [sys.executable, "-m", f"{__package__}.loadgen"]
    try:
        done = subprocess.run(  # noqa: S603 - the command is this program's own
            command, input=msgspec.msgpack.encode(plan), capture_output=True, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        raise BenchError("The load generator did not come to an end.") from None
    if done.returncode != 0:
        last_words = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise BenchError(f"The load generator failed: {''.join(last_words)}")
    return msgspec.msgpack.decode(done.stdout, type=Result)


def _rss_bytes(server: Server) -> int | None:
    usage = usage_of(server.pid)
    return usage.rss_bytes if usage else None


@contextlib.contextmanager
def ended_by_sigterm() -> Generator[None]:
    """SIGTERM unwinds like Ctrl-C, so that no server is left behind."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
