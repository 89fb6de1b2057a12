"""`iotflow simulate`: a fleet submits telemetry until the time is over or Ctrl-C."""

import asyncio
import signal
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from iotflow.cli.client import base_url, require_directory
from iotflow.cli.fleet import Faults, Fleet
from iotflow.cli.loops import loop_factory
from iotflow.cli.retrying import Retrying
from iotflow.cli.simulating.load import Load, Target
from iotflow.cli.simulating.registration import Registration
from iotflow.cli.simulating.state import SimulatorState
from iotflow.cli.terminal import count, progress, results, say

ALL_ACKNOWLEDGED, NOT_ALL, INTERRUPTED = 0, 1, 130
_PATIENCE_S = 10.0
_LIVE_S = 0.5
_PLAIN_S = 10.0  # how often a line goes to what is no terminal
_RATE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateOptions:
    """The options of `iotflow simulate`, as they were given. `duration_s` 0: until Ctrl-C."""

    devices: int = 10
    rate: float = 10.0
    duration_s: float = 0.0
    seed: int = 1
    in_flight: int = 64
    faults: Faults = field(default_factory=Faults)
    url: str = "http://127.0.0.1:8000"
    username: str = "simulator"
    password: str | None = None
    state: Path = Path("simulator-state.json")


def run_simulation(options: SimulateOptions) -> int:
    """Simulate a fleet; returns the exit status.

    ALL_ACKNOWLEDGED, also where Ctrl-C ended it; NOT_ALL where a submission was rejected or
    lost; INTERRUPTED where Ctrl-C came before the fleet was ready.

    Raises:
        ConfigurationError: an option cannot work.
        ServerUnreachableError, RefusedError: the fleet could not be made ready.
    """
    require_directory(options.state, "--state")
    console, url = progress(), base_url(options.url)
    try:
        keys = _keys(options, url, console)
    except KeyboardInterrupt:
        say(console, "Interrupted before the fleet was ready.")
        return INTERRUPTED
    fleet = Fleet(options.devices, options.seed, options.faults)
    load = Load(
        Target.of(url, keys),
        fleet.submission,
        rate=options.rate,
        connections=options.in_flight,
        duration_s=options.duration_s,
    )
    # Where signals have no handlers Ctrl-C comes out of here, and the summary still follows.
    with suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_run(load, console))
    results().print(load.ledger.table(load.seconds))
    return ALL_ACKNOWLEDGED if load.ledger.complete else NOT_ALL


def _keys(options: SimulateOptions, url: str, console: Console) -> list[str]:
    state = SimulatorState(options.state)
    with Live(Text("Registering devices"), console=console, transient=True) as live:

        def waiting(why: str, seconds: float) -> None:
            live.update(Text(f"Waiting {seconds:.0f} s: {why}"))

        def progressed(ready: int, of: int) -> None:
            live.update(Text(f"Devices ready: {ready:,} of {of:,}"))

        retrying = Retrying(url, _PATIENCE_S, waiting)
        registration = Registration(url, options.username, state, retrying)
        keys = registration.keys(options.devices, options.password, progressed)
    say(console, f"{count(len(keys), 'device')} of '{options.username}' ready; Ctrl-C ends.")
    return keys


async def _run(load: Load, console: Console) -> None:
    stop = asyncio.Event()
    with _stopped_by_signals(stop):
        line = asyncio.get_running_loop().create_task(_tell(load, console), name="progress-line")
        try:
            await load.run(stop)
        finally:
            line.cancel()
            with suppress(asyncio.CancelledError):
                await line


async def _tell(load: Load, console: Console) -> None:
    """The one progress line, or one line now and then where there is no terminal."""
    recent = _RecentRate()
    if not console.is_terminal:
        while True:
            await asyncio.sleep(_PLAIN_S)
            say(console, load.ledger.line(recent.rate(load.ledger.acknowledged)))
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            rate = recent.rate(load.ledger.acknowledged)
            live.update(Text(load.ledger.line(rate), no_wrap=True), refresh=True)
            await asyncio.sleep(_LIVE_S)


class _RecentRate:
    """Acknowledged a second over the last seconds."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque([(time.perf_counter(), 0)])

    def rate(self, acknowledged: int) -> float:
        now = time.perf_counter()
        self._marks.append((now, acknowledged))
        while len(self._marks) > 2 and self._marks[1][0] < now - _RATE_S:
            self._marks.popleft()
        since, before = self._marks[0]
        return (acknowledged - before) / max(now - since, 1e-9)


@contextmanager
def _stopped_by_signals(stop: asyncio.Event) -> Generator[None]:
    """Ctrl-C and SIGTERM end the run in order, with its summary."""
    loop = asyncio.get_running_loop()
    handled = (signal.SIGINT, signal.SIGTERM)
    try:
        for each in handled:
            loop.add_signal_handler(each, stop.set)
    except NotImplementedError:  # Windows has no such handlers: there Ctrl-C cancels the run
        yield
        return
    try:
        yield
    finally:
        for each in handled:
            loop.remove_signal_handler(each)
