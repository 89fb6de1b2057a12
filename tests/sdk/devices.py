"""Devices as processes beside a service that dies under them and comes back."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.process.conftest import (
    Credentials,
    Served,
    environment,
    free_port,
    wait_until_ready,
)
from tests.sdk.conftest import read_back

TIMEOUT_S = 60.0
Points = dict[tuple[int, str], Any]


class MortalService:
    """`iotflow serve` on one port and one data directory, however often it is started."""

    def __init__(self, data_dir: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = environment(data_dir, self.port)
        self._log = data_dir.parent / f"{data_dir.name}-{self.port}.log"
        self._running: Served | None = None

    def start(self) -> None:
        with self._log.open("a") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "iotflow.cli.main", "serve"],
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self._running = Served(self.url, process, self._log)
        wait_until_ready(self.url, process, self._log)

    def kill(self) -> None:
        if self._running is not None and self._running.process.poll() is None:
            self._running.kill()


@dataclass
class DeviceProcess:
    """A device's program and the lines that it says."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def wait_for(self, enough: Callable[[list[str]], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not enough(self.lines):
            assert time.monotonic() < deadline, self.lines
            assert self.process.poll() is None, self.lines
            time.sleep(0.02)

    def finish(self) -> None:
        assert self.process.wait(timeout=TIMEOUT_S) == 0, self.lines

    def measured(self) -> Points:
        """(epoch milliseconds, name) -> value, as the device says it measured them."""
        points: Points = {}
        for line in self.lines:
            if match := re.match(r"measured (\d+) (\{.*\})$", line):
                for name, value in json.loads(match[2]).items():
                    plain = value["value"] if isinstance(value, dict) else value
                    points[int(match[1]), name] = plain
        return points


@contextmanager
def device(*command: str, cwd: Path, **variables: str) -> Iterator[DeviceProcess]:
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    running = DeviceProcess(process)

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            running.lines.append(line.rstrip("\n"))

    reader = threading.Thread(target=read, name="device-output", daemon=True)
    reader.start()
    try:
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=10)
        reader.join(timeout=10)
        if process.stdout is not None:
            process.stdout.close()


def stored(url: str, credentials: Credentials) -> Points:
    """What the service has of the device. A point that is there twice is an error."""
    found = read_back(url, credentials.token, credentials.device_id)
    points = {
        (
            round(datetime.fromisoformat(point["timestamp"]).timestamp() * 1000),
            point["measurement_name"],
        ): point["value"]
        for point in found
    }
    assert len(points) == len(found)
    return points


@dataclass
class Refusing:
    """A server that refuses some times, then takes everything; when it was asked for what."""

    url: str
    asked: list[tuple[float, str, Any]]


@contextmanager
def refusing(
    times: int, retry_after_s: int, *, status: int = 429, always: str = "nothing"
) -> Iterator[Refusing]:
    """Refuses `times` requests, and each whose path has `always` in it."""
    asked: list[tuple[float, str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"null")
            asked.append((time.monotonic(), self.path, body))
            refused = len(asked) <= times or always in self.path
            receipt = {
                "device_id": 1,
                "timestamp": "2026-01-31T14:30:00.000Z",
                "accepted": 1,
                "rejected": [],
            }
            problem = {"type": "", "title": "", "status": status, "detail": "", "code": "busy"}
            problem["request_id"] = ""
            answer = json.dumps(problem if refused else receipt).encode()
            self.send_response(status if refused else 201)
            self.send_header("Content-Type", f"application/{'problem+' if refused else ''}json")
            if refused:
                self.send_header("retry-after", str(retry_after_s))
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_GET(self) -> None:
            self.send_response(304)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on the test's output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="refusing", daemon=True)
    thread.start()
    try:
        yield Refusing(f"http://127.0.0.1:{server.server_port}", asked)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
