"""Runs helpers of the benchmark, the load generator first of all, as processes of their own."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from types import FrameType

import msgspec

from iotflow.cli.bench.options import BenchError
from iotflow.cli.bench.plan import Plan, Result, ValidationPlan, ValidationResult
from iotflow.cli.bench.servers import Server

_GRACE_S = 30.0


def generate(plan: Plan) -> Result:
    """Carry out a plan in a process of its own.

    Raises:
        BenchError: the generator failed, or did not come to an end in time.
    """
    limit_s = plan.load_s + plan.drain_s + _GRACE_S
    answer = _run("loadgen", msgspec.msgpack.encode(plan), limit_s)
    return msgspec.msgpack.decode(answer, type=Result)


def validate_keys(plan: ValidationPlan, server: Server) -> ValidationResult:
    """Key validation in a process of its own, on the settings that a server was started with.

    Raises:
        BenchError: as `generate`.
    """
    limit_s = plan.warmup_s + plan.seconds + _GRACE_S
    given = msgspec.msgpack.encode(plan)
    answer = _run("validation", given, limit_s, server.environment, server.runs_in)
    return msgspec.msgpack.decode(answer, type=ValidationResult)


def _run(
    name: str,
    given: bytes,
    limit_s: float,
    environment: Mapping[str, str] | None = None,
    runs_in: Path | None = None,
) -> bytes:
    """What a module of this package answers on stdout to what it is given on stdin."""
    command = [sys.executable, "-m", f"{__package__}.{name}"]
    try:
        done = subprocess.run(  # noqa: S603 - the command is this program's own
            command,
            input=given,
            capture_output=True,
            timeout=limit_s,
            env=environment,
            cwd=runs_in,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"The process '{name}' did not come to an end.") from None
    if done.returncode != 0:
        last_words = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise BenchError(f"The process '{name}' failed: {''.join(last_words)}")
    return done.stdout


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
