"""Cassandra nodes on loopback addresses, to be killed, frozen, joined and sent away."""

import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.process.conftest import Served, served
from tests.servers.own_server import OwnServers, own_servers
from tests.servers.stores import with_path

PORT_OFFSET = 3500
NODES = ("cassandra-ring-1", "cassandra-ring-2", "cassandra-ring-3")
_MODEL = NODES[2]
_JMX_PORT = 17211 + PORT_OFFSET
_NODETOOL_S = 240


class Ring:
    """Three nodes of deploy/local, replication 3, and perhaps a fourth."""

    def __init__(self, servers: OwnServers, directory: Path) -> None:
        self._servers = servers
        self._directory = directory
        self._fourth: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> None:
        """Have the three work: at once where they do, and none of their data goes."""
        self.url = self._servers.start()["IOTFLOW_TELEMETRY__URL"]

    def fresh_keyspace(self) -> str:
        """The URL of a keyspace that nothing is in: ids of devices begin anew in every test."""
        return with_path(self.url, f"faults_{secrets.token_hex(6)}")

    def restart(self, name: str) -> None:
        """Start one anew; returns when it answers, whatever the others do."""
        self._servers.restart(name)

    def kill(self, *names: str) -> None:
        for name in names:
            self._servers.kill(name)

    @contextmanager
    def frozen(self, *names: str) -> Iterator[None]:
        with ExitStack() as stack:
            for name in names:
                stack.enter_context(self._servers.frozen(name))
            yield

    def join_fourth(self) -> None:
        """Start a fourth node on 127.0.0.4, as the third was started; wait until it has joined."""
        config = self._directory / "config" / "fourth"
        shutil.copytree(self._directory / "config" / _MODEL, config)
        for file in config.iterdir():
            file.write_text(self._moved(file.read_text()))
        command = [self._moved(word) for word in self._servers.command(_MODEL)]
        data = self._directory / "data" / "fourth"
        data.mkdir()
        with (self._directory / "fourth.log").open("wb") as log:
            self._fourth = subprocess.Popen(command, cwd=data, stdout=log, stderr=log)
        self._wait_for_state("127.0.0.4", "UN")

    def decommission(self, number: int) -> None:
        """Send a node away: it gives its data to the others first."""
        self.nodetool(number, "decommission")

    def nodetool(self, number: int, *words: str) -> str:
        command = self._servers.command(_MODEL)
        classes = command[command.index("-cp") + 1]
        exports = [word for word in command if word.startswith("@")]
        tool = [command[0], *exports, "-cp", classes, "org.apache.cassandra.tools.NodeTool"]
        port = str(_JMX_PORT + number - 1)
        done = subprocess.run(
            [*tool, "-h", "127.0.0.1", "-p", port, *words],
            capture_output=True,
            text=True,
            timeout=_NODETOOL_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def states(self) -> dict[str, str]:
        """Address -> UN (up, normal), UJ (joins), UL (leaves), DN (down) ..."""
        lines = [line.split() for line in self.nodetool(1, "status").splitlines()]
        return {line[1]: line[0] for line in lines if line[1:] and line[1][0].isdigit()}

    def end_fourth(self) -> None:
        if self._fourth is not None:
            self._fourth.send_signal(signal.SIGKILL)
            self._fourth.wait(10)

    def _wait_for_state(self, address: str, state: str) -> None:
        deadline = time.monotonic() + _NODETOOL_S
        while self.states().get(address) != state:
            assert self._fourth is not None
            assert self._fourth.poll() is None, "it ended while it joined"
            assert time.monotonic() < deadline, f"{address} is not {state}"
            time.sleep(1)

    @staticmethod
    def _moved(text: str) -> str:
        """The third node's text, for the fourth. Seeds are the first node, so they stay."""
        port = str(_JMX_PORT + 2)
        text = text.replace("127.0.0.3", "127.0.0.4").replace(_MODEL, "fourth")
        return text.replace(f"jmx.local.port={port}", f"jmx.local.port={_JMX_PORT + 3}")


@contextmanager
def serving(ring: Ring, data: Path) -> Iterator[Served]:
    """The service on a fresh keyspace of the ring; its other stores are its own and stay.

    Without the driver's warnings: nobody reads them, and a full pipe would stop the service.
    """
    settings = {"IOTFLOW_TELEMETRY__URL": ring.fresh_keyspace(), "IOTFLOW_LOG__LEVEL": "error"}
    with served(data, **settings) as service:
        yield service


@contextmanager
def running_ring(directory: Path) -> Iterator[Ring]:
    """A ring of its own, removed at the end."""
    with own_servers(directory, PORT_OFFSET, "cassandra-ring") as servers:
        ring = Ring(servers, directory)
        try:
            ring.start()
            yield ring
        finally:
            ring.end_fourth()
