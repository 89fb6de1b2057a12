"""The directory in which the servers live: their data, logs, jars, and what runs.

LOCAL_SERVERS_DIR puts it elsewhere, LOCAL_SERVERS_PORT_OFFSET is added to every port, so
that a second set can run beside the first.
"""

import fcntl
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from local_servers.errors import LocalServersError, say
from local_servers.processes import Identity, is_alive

SOURCES = Path(__file__).resolve().parents[1]
_CHECKOUT = SOURCES.parents[1]
_LOCK_TIMEOUT_S = 1200.0
_MAX_OFFSET = 4000  # keeps every port below those that the kernel hands out


@dataclass(frozen=True, slots=True)
class Record:
    """A server that was started: which process, where it answers, from which launch."""

    identity: Identity
    host: str
    port: int
    log: str
    fingerprint: str


class Home:
    """Paths, the lock and the state of one set of servers; safe to use from threads."""

    def __init__(self, directory: Path, port_offset: int) -> None:
        self.directory = directory
        self.port_offset = port_offset
        self._state_file = directory / "state.json"
        self._mutex = threading.Lock()

    @classmethod
    def from_environment(cls) -> "Home":
        """The home that the environment asks for.

        Raises:
            LocalServersError: a directory or an offset that cannot be used.
        """
        directory = os.environ.get("LOCAL_SERVERS_DIR") or str(_CHECKOUT / ".servers")
        offset = os.environ.get("LOCAL_SERVERS_PORT_OFFSET") or "0"
        if not offset.isdecimal() or int(offset) > _MAX_OFFSET:
            raise LocalServersError(
                f"LOCAL_SERVERS_PORT_OFFSET: a whole number from 0 to {_MAX_OFFSET}"
            )
        path = Path(directory).resolve()
        if re.search(r"[\s:]", str(path)):  # the servers' own configuration files take none
            raise LocalServersError(f"{path}: set LOCAL_SERVERS_DIR to a path without a space")
        return cls(path, int(offset))

    def data(self, name: str) -> Path:
        return self.directory / "data" / name

    def config(self, name: str) -> Path:
        return self.directory / "config" / name

    def log(self, name: str) -> Path:
        return self.directory / "logs" / f"{name}.log"

    def mark_complete(self, name: str, fingerprint: str) -> None:
        """Remember that a server once ran on its data: from now on it is kept."""
        marker = self._marker(name)
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.write_text(fingerprint)

    def completed_by(self, name: str) -> str | None:
        """The launch that a server's data was made by; None if it is missing or half-made."""
        marker = self._marker(name)
        return marker.read_text() if marker.exists() and self.data(name).exists() else None

    def wipe(self, name: str) -> None:
        """Remove a server's data. The marker goes first, so that half a removal is seen."""
        self._marker(name).unlink(missing_ok=True)
        data = self.data(name)
        if data.is_symlink():
            shutil.rmtree(data.resolve(), ignore_errors=True)
            data.unlink()
        elif data.exists():
            shutil.rmtree(data)

    @contextmanager
    def locked(self) -> Generator[None]:
        """One start or stop at a time; the second waits for the first.

        Raises:
            LocalServersError: the first one took longer than any start may take.
        """
        self._make_directory()
        with (self.directory / "lock").open("w") as file:
            deadline = time.monotonic() + _LOCK_TIMEOUT_S
            waiting = False
            while not _try_lock(file.fileno()):
                if not waiting:
                    say("Waiting for another start or stop to finish ...")
                waiting = True
                if time.monotonic() > deadline:
                    raise LocalServersError(f"{self.directory}/lock is held for too long")
                time.sleep(0.1)
            yield

    def _make_directory(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            (self.directory / ".gitignore").write_text("*\n")
        except OSError as error:
            raise LocalServersError(
                f"{self.directory} cannot be used ({error.strerror}): set LOCAL_SERVERS_DIR"
            ) from None

    def records(self) -> dict[str, Record]:
        """What was started and not stopped, dead or alive, by name."""
        nodes: dict[str, Any] = self._read().get("nodes", {})
        return {
            name: Record(
                Identity(node["pid"], node["start_ticks"], node["boot_id"]),
                node["host"],
                node["port"],
                node["log"],
                node["fingerprint"],
            )
            for name, node in nodes.items()
        }

    def running(self, name: str) -> Record | None:
        """The record of a server whose process lives."""
        record = self.records().get(name)
        return record if record and is_alive(record.identity) else None

    def remember(self, name: str, record: Record) -> None:
        fields = asdict(record)
        fields.update(fields.pop("identity"))
        with self._mutex:
            state = self._read()
            state.setdefault("nodes", {})[name] = fields
            self._write(state)

    def forget(self, name: str) -> None:
        with self._mutex:
            state = self._read()
            state.get("nodes", {}).pop(name, None)
            self._write(state)

    def remember_settings(self, topology: str, settings: dict[str, str]) -> None:
        with self._mutex:
            state = self._read()
            state.setdefault("settings", {})[topology] = settings
            self._write(state)

    def settings(self) -> dict[str, dict[str, str]]:
        """The settings of every topology that was ever started here, by its name."""
        return self._read().get("settings", {})

    def _marker(self, name: str) -> Path:
        return self.directory / "data" / f"{name}.complete"

    def _read(self) -> dict[str, Any]:
        try:
            return json.loads(self._state_file.read_text())
        except FileNotFoundError:
            return {}
        except json.JSONDecodeError:
            raise LocalServersError(f"{self._state_file} is not JSON: remove it") from None

    def _write(self, state: dict[str, Any]) -> None:
        draft = self._state_file.with_suffix(".new")
        draft.write_text(json.dumps(state, indent=2) + "\n")
        draft.replace(self._state_file)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
