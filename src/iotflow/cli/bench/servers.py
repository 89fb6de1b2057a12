"""Servers under measurement: subprocesses on free ports of 127.0.0.1, with their own data."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from iotflow.cli.bench.options import BenchError

HOST = "127.0.0.1"
_START_TIMEOUT_S = 40.0
_STOP_TIMEOUT_S = 15.0
_POLICIES = ("REGISTER", "LOGIN", "LOGIN_FAILURES", "INGEST", "POINTS", "READ", "WRITE")
# They are counted all the same, as everywhere.
_OUT_OF_REACH = {f"IOTFLOW_RATE_LIMITS__{policy}": "1000000000/10" for policy in _POLICIES}
_UVICORN = ("--no-access-log", "--log-level", "warning", "--host", HOST)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, and what it was started with: there are secrets in `environment`."""

    name: str
    port: int
    pid: int
    environment: Mapping[str, str] = field(repr=False)
    runs_in: Path
    has_metrics: bool = False

    @property
    def base_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def netloc(self) -> str:
        return f"{HOST}:{self.port}"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class _Launch:
    """How a server is started. Its log stands in `directory`."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    port: int
    ready_path: str
    directory: Path
    runs_in: Path
    has_metrics: bool = False

    @property
    def log_file(self) -> Path:
        return self.directory / f"{self.name}.log"

    @property
    def ready_url(self) -> str:
        return f"http://{HOST}:{self.port}{self.ready_path}"


@contextlib.contextmanager
def uvicorn_server(
    name: str, app: str, directory: Path, *flags: str, ready: str = "/", **variables: str
) -> Generator[Server]:
    """An ASGI app on one uvicorn worker, with the loop and parser that IoTFlow runs on.

    Raises:
        BenchError: it did not start; the message ends with its last words.
    """
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), *_UVICORN, *flags]
    environment = _environment(variables, configured=False)
    with _running(_Launch(name, command, environment, port, ready, directory, directory)) as server:
        yield server


@contextlib.contextmanager
def iotflow_server(
    name: str, directory: Path, settings: Mapping[str, str], *, configured: bool
) -> Generator[Server]:
    """`iotflow serve` with rate limits that nobody reaches, its data under `directory`.

    With `configured` it inherits the caller's IOTFLOW_ settings and so its stores;
    otherwise every store is embedded and nothing outside of `directory` is touched.

    Raises:
        BenchError: as `uvicorn_server`.
    """
    port = free_port()
    own = {
        "IOTFLOW_DATA_DIR": str(directory / name),
        "IOTFLOW_HOST": HOST,
        "IOTFLOW_PORT": str(port),
        **_OUT_OF_REACH,
        "IOTFLOW_QUOTAS__DEVICES": "10000000",
        "IOTFLOW_LOG__LEVEL": "warning",
        **settings,
    }
    environment = _environment(own, configured=configured)
    command = [sys.executable, "-m", "iotflow.cli.main", "serve"]
    runs_in = Path.cwd() if configured else directory  # where a .env would be read
    launch = _Launch(
        name, command, environment, port, "/health/ready", directory, runs_in, has_metrics=True
    )
    with _running(launch) as server:
        yield server


def _environment(own: Mapping[str, str], *, configured: bool) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if configured or not name.startswith("IOTFLOW_")
    }
    return {**kept, **own}


@contextlib.contextmanager
def _running(launch: _Launch) -> Generator[Server]:
    with launch.log_file.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - the command is this program's own
            launch.command,
            env=launch.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=launch.runs_in,
        )
    try:
        _await_ready(launch, process)
        yield Server(
            launch.name,
            launch.port,
            process.pid,
            launch.environment,
            launch.runs_in,
            launch.has_metrics,
        )
    finally:
        _stop(process)


def _await_ready(launch: _Launch, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    answer = "no answer"
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            status = httpx.get(launch.ready_url, timeout=2).status_code
            if status < 500:
                return
            answer = f"status {status}"
        time.sleep(0.1)
    ended = process.poll()
    why = f"ended with status {ended}" if ended is not None else f"was not ready in time ({answer})"
    last_words = launch.log_file.read_text(errors="replace").strip().splitlines()[-5:]
    raise BenchError("\n".join([f"The server '{launch.name}' {why}.", *last_words]))


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
