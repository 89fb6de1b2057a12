"""CPU time and memory of a process and its children, from /proc; None where there is none."""

import os
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """`cpu_s` since the process began; `rss_bytes` now."""

    cpu_s: float
    rss_bytes: int


def usage_of(pid: int, proc: Path = _PROC) -> Usage | None:
    """What a process and all its descendants use; None where it is gone or not Linux."""
    family = _family(pid, proc)
    if not family:
        return None
    ticks = sum(cpu for cpu, _ in family)
    pages = sum(rss for _, rss in family)
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"))


def _family(pid: int, proc: Path) -> list[tuple[int, int]]:
    """(CPU ticks, resident pages) of the process and its descendants."""
    stat = _stat(proc / str(pid))
    if stat is None:
        return []
    found = [stat]
    for children in (proc / str(pid) / "task").glob("*/children"):
        for child in _read(children).split():
            found += _family(int(child), proc)
    return found


def _stat(process: Path) -> tuple[int, int] | None:
    text = _read(process / "stat")
    if not text:
        return None
    # The command's name is in parentheses and may hold anything, also spaces.
    fields = text.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12]), int(fields[21])


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
