"""CPU time and memory of processes and their children, from /proc; None where there is none."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """`cpu_s` since they began; `rss_bytes` now, where a page that several share counts once."""

    cpu_s: float
    rss_bytes: int


def usage_of(pids: Iterable[int], proc: Path = _PROC) -> Usage | None:
    """What processes and all their descendants use; None where all are gone or not Linux."""
    family = list(dict.fromkeys(member for pid in pids for member in _family(pid, proc)))
    ticks = [found for pid in family if (found := _ticks(proc / str(pid))) is not None]
    if not ticks:
        return None
    memory = _resident if len(family) == 1 else _proportional
    rss_bytes = sum(memory(proc / str(pid)) for pid in family)
    return Usage(sum(ticks) / os.sysconf("SC_CLK_TCK"), rss_bytes)


def most_rss_bytes() -> int:
    """The most memory that this process has held; 0 where it cannot be known."""
    for line in _read(_PROC / "self" / "status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _family(pid: int, proc: Path) -> list[int]:
    found = [pid]
    for children in (proc / str(pid) / "task").glob("*/children"):
        for child in _read(children).split():
            found += _family(int(child), proc)
    return found


def _ticks(process: Path) -> int | None:
    fields = _stat(process)
    # Its own time and that of children that have ended: a connection's process may come and go.
    return sum(int(field) for field in fields[11:15]) if fields else None


def _resident(process: Path) -> int:
    fields = _stat(process)
    return int(fields[21]) * os.sysconf("SC_PAGE_SIZE") if fields else 0


def _proportional(process: Path) -> int:
    """Its share: PostgreSQL's processes each hold the shared buffers."""
    for line in _read(process / "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return _resident(process)


def _stat(process: Path) -> list[str]:
    # The command's name is in parentheses and may hold anything, also spaces.
    return _read(process / "stat").rpartition(")")[2].split()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
