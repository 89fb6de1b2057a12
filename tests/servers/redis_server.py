"""Redis servers of a test's own, to be frozen, killed and brought back."""

import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

_START_S = 10


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class RedisServer:
    """`options` are redis-server's, without the dashes."""

    directory: Path
    options: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    arguments: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.client = Redis(port=self.port, socket_timeout=5, **self._credentials())

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def _credentials(self) -> dict[str, Any]:
        return {"password": self.options["requirepass"]} if "requirepass" in self.options else {}

    def start(self) -> None:
        """Start it on whatever data lie in its directory, and wait for its answer."""
        self.directory.mkdir(exist_ok=True)
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.directory),
            "save": "",
            **self.options,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        # The configuration's file, if there is one, comes before the options.
        self.process = subprocess.Popen(
            ["redis-server", *self.arguments, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.wait_for(lambda: self.client.ping())

    @staticmethod
    def wait_for(answers: Any, limit_s: float = _START_S) -> None:
        """Until it returns something true; errors of the server's are no answer."""
        until = time.monotonic() + limit_s
        while True:
            try:
                if answers():
                    return
            except RedisError:
                if time.monotonic() > until:
                    raise
            assert time.monotonic() < until, "no such answer in time"
            time.sleep(0.02)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """As a power cut would."""
        self._signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(10)

    def stop(self) -> None:
        self.client.close()
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
