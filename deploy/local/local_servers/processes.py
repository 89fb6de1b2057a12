"""Processes that outlive the program that started them, and are known again by the next one.

A pid alone may belong to somebody else by now. With the start time in clock ticks and the
boot it belongs to, it names one process for ever.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, on one boot of this machine."""

    pid: int
    start_ticks: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server's process is started.

    `files` are written before it starts. `kept_files` too, but only into a new data
    directory: the server writes to them itself. `user` takes a root's process down to another
    user. `timer_slack_ns` is how much later than asked the kernel may end its short sleeps,
    where the kernel lets us say so; without it the kernel's own 50 us.
    """

    command: Sequence[str]
    runs_in: Path
    files: Mapping[Path, str] = field(default_factory=dict[Path, str])
    kept_files: Mapping[Path, str] = field(default_factory=dict[Path, str])
    user: str | None = None
    timer_slack_ns: int | None = None


def spawn(launch: Launch, log: Path) -> Identity:
    """Start a process in a session of its own, with no stream of ours.

    Raises:
        OSError: the program cannot be run.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_suffix(".previous.log"))
    with log.open("wb") as output, _timer_slack(launch.timer_slack_ns):
        process = subprocess.Popen(  # noqa: S603 - the command is built here, from constants and paths
            list(launch.command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=launch.runs_in,
            start_new_session=True,
            user=launch.user,
            group=launch.user,
            extra_groups=[] if launch.user else None,
        )
    # Until it is waited for, even a process that ended at once can still be identified.
    identity = Identity(process.pid, _start_ticks(process.pid), boot_id())
    process.returncode = 0  # nobody will wait for it: it outlives us
    return identity


@contextlib.contextmanager
def _timer_slack(slack_ns: int | None) -> Generator[None]:
    """Give this thread another timer slack: what it starts meanwhile keeps it, threads too."""
    if slack_ns is None:
        yield
        return
    setting = Path(f"/proc/{threading.get_native_id()}/timerslack_ns")
    try:
        before = setting.read_text()
        setting.write_text(str(slack_ns))
    except OSError:  # some sandboxes have no such file; the server is merely slower
        yield
        return
    try:
        yield
    finally:
        setting.write_text(before)


def is_alive(identity: Identity) -> bool:
    """Whether exactly this process still runs. A zombie does not.

    The first thread may be a zombie already while others still hold the files and ports.
    """
    if identity.boot_id != boot_id():
        return False
    fields = _stat(identity.pid)
    if not fields or int(fields[19]) != identity.start_ticks:
        return False
    return fields[0] not in "ZX" or int(fields[17]) > 1


def is_frozen(identity: Identity) -> bool:
    """Whether it was stopped by SIGSTOP."""
    fields = _stat(identity.pid)
    return bool(fields) and fields[0] == "T"


def send(identity: Identity, signal_number: int) -> None:
    """Send a signal, if the process is still the one that is meant."""
    if is_alive(identity):
        with contextlib.suppress(ProcessLookupError):
            os.kill(identity.pid, signal_number)


def stop(identity: Identity, signal_number: int, grace_s: float) -> bool:
    """End a process: politely, and after `grace_s` by force. Returns whether it ended politely."""
    send(identity, signal_number)
    send(identity, signal.SIGCONT)  # a frozen one would not see the first signal
    if wait_for_end(identity, grace_s):
        return True
    send(identity, signal.SIGKILL)
    wait_for_end(identity, 10)
    return False


def wait_for_end(identity: Identity, timeout_s: float) -> bool:
    """Wait until a process has ended; false if it has not within the time."""
    deadline = time.monotonic() + timeout_s
    while is_alive(identity):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def last_lines(log: Path, count: int = 15) -> str:
    """The end of a log, for an error message."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 32_768))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-count:])
    return "(no log)"


def boot_id() -> str:
    """Which boot of this machine it is: start times count from there."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_ticks(pid: int) -> int:
    return int(_stat(pid)[19])


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()  # the name before it may hold spaces
