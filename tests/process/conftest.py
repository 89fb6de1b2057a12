"""The service as users start it: a process of its own on a port of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

START_TIMEOUT_S = 30.0
PASSWORD = "correct horse battery"
_SHOWN_CHARACTERS = 20_000


@dataclass(frozen=True)
class Served:
    """A running service."""

    url: str
    process: subprocess.Popen[str]
    log: Path
    """Where its output goes."""

    def kill(self) -> None:
        """SIGKILL: it has no chance to do anything."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(data_dir: Path, port: int, **settings: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if "IOTFLOW" not in name}
    return inherited | {
        "IOTFLOW_DATA_DIR": str(data_dir),
        "IOTFLOW_PORT": str(port),
        "IOTFLOW_RATE_LIMITS__ENABLED": "false",
        "IOTFLOW_LOG__LEVEL": "warning",
        **settings,
    }


@contextmanager
def served(data_dir: Path, *, arguments: tuple[str, ...] = (), **settings: str) -> Iterator[Served]:
    """`iotflow serve`, on embedded stores if the settings name no others, until the block ends."""
    port = free_port()
    # A pipe that nobody reads would stop the service once it is full.
    log = data_dir.parent / f"{data_dir.name}-{port}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "iotflow.cli.main", "serve", *arguments],
            env=environment(data_dir, port, **settings),
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, process, log)
        yield Served(url, process, log)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # pytest shows it where the test has failed.
        print(f"The log of {url}:", log.read_text()[-_SHOWN_CHARACTERS:], sep="\n")


def wait_until_ready(url: str, process: subprocess.Popen[str], log: Path) -> None:
    """`log` is where its output goes."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"the service ended: {log.read_text()}")
        try:
            if httpx.get(f"{url}/health/ready", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError("the service did not become ready")


@dataclass(frozen=True)
class Credentials:
    token: str
    device_id: int
    api_key: str

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def key(self) -> dict[str, str]:
        return {"X-API-Key": self.api_key}


def register(url: str, username: str = "ada") -> Credentials:
    """A new account with one device."""
    with httpx.Client(base_url=f"{url}/api/v1", timeout=20) as client:
        account = {"username": username, "password": PASSWORD}
        client.post("/auth/register", json=account | {"email": f"{username}@example.com"})
        token = client.post("/auth/login", json=account).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        body = {"name": "a device"}
        registered = client.post("/devices/register", json=body, headers=headers).json()
        return Credentials(token, registered["device"]["id"], registered["api_key"])
