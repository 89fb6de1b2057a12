"""A server of a test's own, that it may kill and freeze, beside whatever else runs here."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_SERVERS = [
    sys.executable,
    str(Path(__file__).resolve().parents[2] / "deploy" / "local" / "servers.py"),
]


class OwnServers:
    """Topologies of deploy/local/servers.py with a directory and ports of their own."""

    def __init__(self, directory: Path, port_offset: int, *topologies: str) -> None:
        self._topologies = topologies
        self._environment = os.environ | {
            "LOCAL_SERVERS_DIR": str(directory),
            "LOCAL_SERVERS_PORT_OFFSET": str(port_offset),
        }

    def start(self) -> dict[str, str]:
        """Start what does not run, wake what is frozen; returns the settings."""
        output = self._run("start", *self._topologies)
        return dict(line.split("=", 1) for line in output.splitlines())

    def remove(self) -> None:
        self._run("remove")

    def kill(self, name: str) -> None:
        """A server and what it started: left alone, a child may finish what it is at."""
        for pid in self._family(name):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """A server that holds its connections and answers nothing, all its processes alike."""
        pids = self._family(name)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def restart(self, name: str) -> None:
        """Start one server anew, dead or alive; returns when it answers."""
        self._run("restart-node", name)

    def command(self, name: str) -> list[str]:
        """How a server that runs was started."""
        return Path(f"/proc/{self._pid(name)}/cmdline").read_text().rstrip("\0").split("\0")

    def _pid(self, name: str) -> int:
        nodes: dict[str, Any] = json.loads(self._run("status", "--json"))["nodes"]
        pid: int = nodes[name]["pid"]
        return pid

    def _family(self, name: str) -> list[int]:
        pid = self._pid(name)
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*_SERVERS, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def own_servers(directory: Path, port_offset: int, *topologies: str) -> Iterator[OwnServers]:
    """Servers that are removed at the end. Each module has an offset for itself."""
    servers = OwnServers(directory, port_offset, *topologies)
    try:
        yield servers
    finally:
        servers.remove()
