"""The example devices against a service that is killed and comes back: nothing lost or doubled."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.process.conftest import register
from tests.sdk.conftest import ROOT, run
from tests.sdk.devices import DeviceProcess, MortalService, device, refusing, stored

pytestmark = pytest.mark.tools

DEVICES = ROOT / "deploy" / "devices"
SHIMS = Path(__file__).parent / "arduino"
STRICT_CPP = ["-std=c++11", "-Wall", "-Wextra", "-Wshadow", "-Werror"]

# (service's URL, device's key, how many readings) -> the device, running
Start = Callable[[str, str, int], AbstractContextManager[DeviceProcess]]


def micropython() -> str:
    built = ROOT / "build" / "tools" / "bin" / "micropython"
    found = str(built) if built.exists() else shutil.which("micropython")
    assert found, "no micropython: make test-tools installs one"
    return found


def start_micropython(folder: Path, **settings: Any) -> Start:
    def start(url: str, key: str, readings: int) -> AbstractContextManager[DeviceProcess]:
        config = {"interval_s": 0.05, "longest_wait_s": 1, "heartbeat_s": 0.2, "config_s": 0.2}
        trial = {"url": url, "api_key": key, "measurements": readings}
        (folder / "config.json").write_text(json.dumps(config | trial | settings))
        return device(
            micropython(), "main.py", str(folder / "config.json"), cwd=DEVICES / "micropython"
        )

    return start


@pytest.fixture(scope="session")
def native_device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The board's core, compiled for this machine."""
    program = tmp_path_factory.mktemp("native") / "device"
    core = DEVICES / "arduino" / "iotflow_device"
    source = str(SHIMS / "device_main.cpp")
    run("g++", *STRICT_CPP, "-pthread", f"-I{core}", "-o", str(program), source, cwd=core)
    return program


def start_native(program: Path) -> Start:
    def start(url: str, key: str, readings: int) -> AbstractContextManager[DeviceProcess]:
        port = url.rsplit(":", 1)[1]
        return device(str(program), port, key, str(readings), "50", cwd=program.parent)

    return start


def start_shell(folder: Path, **settings: str) -> Start:
    def start(url: str, key: str, readings: int) -> AbstractContextManager[DeviceProcess]:
        (folder / "key").write_text(key)
        variables = {
            "IOTFLOW_URL": url,
            "IOTFLOW_KEY_FILE": str(folder / "key"),
            "IOTFLOW_OUTBOX": str(folder / "outbox"),
            "IOTFLOW_INTERVAL_S": "0",
            "IOTFLOW_LONGEST_WAIT_S": "1",
            "IOTFLOW_READINGS": str(readings),
        }
        script = str(DEVICES / "curl" / "device.sh")
        return device("sh", script, cwd=folder, **variables | settings)

    return start


@pytest.fixture(params=["micropython", "native", "shell"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    if request.param == "micropython":
        return start_micropython(tmp_path)
    if request.param == "native":
        return start_native(request.getfixturevalue("native_device"))
    return start_shell(tmp_path)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[MortalService]:
    mortal = MortalService(tmp_path / "data")
    try:
        mortal.start()
        yield mortal
    finally:
        mortal.kill()


def measured(count: int) -> Callable[[list[str]], bool]:
    return lambda lines: sum(line.startswith("measured") for line in lines) >= count


def test_nothing_is_lost_or_doubled_when_the_service_dies(
    start: Start, service: MortalService, request: pytest.FixtureRequest
) -> None:
    credentials = register(service.url)
    readings = 8 if "shell" in request.node.name else 80
    with start(service.url, credentials.api_key, readings) as running:
        running.wait_for(measured(readings // 4))
        service.kill()
        running.wait_for(measured(readings // 2))
        service.start()
        running.finish()
    said = running.measured()
    assert len({moment for moment, _ in said}) == readings
    assert stored(service.url, credentials) == said
    assert "dropped 0" in running.lines[-1]


@pytest.mark.parametrize("kind", ["micropython", "native", "shell"])
def test_retry_after_is_obeyed_and_the_same_timestamp_sent_again(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    begin = {
        "micropython": lambda: start_micropython(tmp_path, heartbeat_s=60),
        "native": lambda: start_native(request.getfixturevalue("native_device")),
        "shell": lambda: start_shell(tmp_path),
    }[kind]()
    # The script counts whole seconds, and without being asked would wait for two of them.
    asked_s, at_least_s = (4, 2.9) if kind == "shell" else (2, 1.9)
    with refusing(1, asked_s) as server, begin(server.url, "key", 1) as running:
        running.finish()
        sent = [each for each in server.asked if "/telemetry" in each[1]]
    assert len(sent) == 2
    assert sent[0][2] == sent[1][2]
    # Retry-After is a floor, which a slow machine can only exceed.
    assert sent[1][0] - sent[0][0] > at_least_s


def test_a_full_outbox_drops_the_oldest_and_says_so(tmp_path: Path) -> None:
    start = start_micropython(tmp_path, outbox_size=5)
    # Twelve readings in 0.6 s, while nothing is sent for two seconds.
    with refusing(1, retry_after_s=2) as server, start(server.url, "key", 12) as running:
        running.finish()
        bodies = [body for _, path, body in server.asked[1:] if "batch" in path]
    moments = [int(line.split()[1]) for line in running.lines if line.startswith("measured")]
    assert len(moments) == 12
    sent = [record["timestamp"] for body in bodies for record in body["records"]]
    assert sent == moments[-5:]
    assert running.lines[-1].endswith("dropped 7")


def test_a_micropython_device_takes_its_configuration_and_reports(
    tmp_path: Path, service: MortalService
) -> None:
    credentials = register(service.url)
    with httpx.Client(base_url=f"{service.url}/api/v1", headers=credentials.bearer) as owner:
        config = f"/devices/{credentials.device_id}/config"
        with start_micropython(tmp_path, interval_s=0.3)(
            service.url, credentials.api_key, 20
        ) as running:
            running.wait_for(measured(2))
            assert owner.put(config, json={"interval_s": 0.06}).status_code == 200
            running.finish()
        answer = owner.get(config).json()
        assert answer["reported"]["version"] == answer["version"]
        assert answer["reported"]["config"] == {"interval_s": 0.06}
        assert owner.get(f"/devices/{credentials.device_id}").json()["is_online"]
    assert running.lines.count("configured: 60 ms") == 1, "its ETag spares it the second time"


def test_a_native_device_hears_of_its_configuration_once(
    native_device: Path, service: MortalService
) -> None:
    credentials = register(service.url)
    config = f"{service.url}/api/v1/devices/{credentials.device_id}/config"
    put = httpx.put(config, json={"interval_s": 5}, headers=credentials.bearer)
    assert put.status_code == 200
    with start_native(native_device)(service.url, credentials.api_key, 40) as running:
        running.finish()
    heard = [line for line in running.lines if line.startswith("config ")]
    assert [json.loads(line.split(" ", 1)[1])["config"] for line in heard] == [{"interval_s": 5}]


def test_the_sketch_compiles_against_the_shims() -> None:
    """Against a few declarations of our own: that it fits the real libraries is not shown."""
    folder = DEVICES / "arduino" / "iotflow_device"
    options = [*STRICT_CPP, "-fsyntax-only", f"-I{SHIMS / 'shims'}", "-include", "Arduino.h"]
    run("g++", *options, "-x", "c++", "iotflow_device.ino", cwd=folder)


def test_the_key_never_appears_in_a_command_line(tmp_path: Path) -> None:
    key, curl = "iotd_" + "x" * 30, shutil.which("curl")
    listening = tmp_path / "bin" / "curl"
    listening.parent.mkdir()
    listening.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {tmp_path}/said\nexec {curl} "$@"\n')
    listening.chmod(0o755)
    path = f"{listening.parent}{os.pathsep}{os.environ['PATH']}"
    with (
        refusing(0, retry_after_s=1) as server,
        start_shell(tmp_path, PATH=path)(server.url, key, 1) as running,
    ):
        running.finish()
    said = (tmp_path / "said").read_text()
    assert "/api/v1/telemetry" in said
    assert key not in said
