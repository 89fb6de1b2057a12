"""The main job with each client, in an environment that holds nothing else."""

import sys
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.process.conftest import Served
from tests.sdk.conftest import (
    BUILD,
    PROGRAMS,
    Installed,
    quick_start,
    read_back,
    report_of,
    run,
    with_node,
)
from tests.sdk.devices import refusing

pytestmark = pytest.mark.tools

TSC = BUILD / "typescript" / "node_modules" / ".bin" / "tsc"
STRICT_TS = [
    "--strict", "--skipLibCheck", "false", "--target", "ES2022", "--module", "NodeNext",
    "--lib", "ES2022,DOM,DOM.Iterable",
]  # fmt: skip
# Node's own types are not part of an empty project; the programs use this much of them.
PROCESS = "declare const process: { env: { [name: string]: string | undefined } };\n"

Run = Callable[..., str]


@pytest.fixture(params=["python", "typescript"])
def main_job(request: pytest.FixtureRequest) -> Run:
    if request.param == "python":
        client: Installed = request.getfixturevalue("python_client")
        return lambda **environment: client.run(PROGRAMS / "main_job.py", **environment)
    client = request.getfixturevalue("typescript_client")
    program = compiled(client, "main_job", (PROGRAMS / "main_job.ts").read_text())
    return lambda **environment: client.run(program, **environment)


def compiled(client: Installed, name: str, text: str) -> Path:
    """The program as JavaScript, after a strict type check against the installed package."""
    (client.home / f"{name}.ts").write_text(PROCESS + text)
    run(str(TSC), *STRICT_TS, f"{name}.ts", cwd=client.home, **with_node())
    return client.home / f"{name}.js"


def test_the_main_job(main_job: Run, service: Served) -> None:
    report = report_of(main_job(IOTFLOW_URL=service.url))
    assert (report["accepted"], report["batch"]) == (4, 250)
    stored = [
        (_moment(point["timestamp"]), point["measurement_name"], point["value"], point["unit"])
        for point in read_back(service.url, report["token"], report["device_id"])
        if (point["measurement_name"], point["value"]) != ("t", 1.0)  # sent after the history
    ]
    assert len(stored) == 254
    assert stored == [
        (_moment(at), name, value, unit) for at, name, value, unit in report["points"]
    ]
    _check_answers(report)


def _check_answers(report: dict[str, Any]) -> None:
    assert report["latest"] == {"t": 23.5, "open": True, "note": "x", "co2": 612, "n": 250}
    assert sum(found for found in report["sum"] if found is not None) == 250 * 251 / 2
    assert report["partly"] == [1, ["1st"]]
    assert report["refused"] == {
        "status": 422, "code": "nothing_accepted", "rejected": [["1st", "invalid_name"]],
    }  # fmt: skip
    assert report["invalid"] == {"status": 422, "fields": ["name"]}
    assert report["async"] in ("python", "typescript")


def test_a_limit_is_waited_for_and_without_retries_told(
    main_job: Run, strict_service: Served
) -> None:
    before = _refusals(strict_service.url)
    report = report_of(main_job(IOTFLOW_URL=strict_service.url, IOTFLOW_STRICT="1"))
    assert report["patient"] == 8
    assert _refusals(strict_service.url) - before > 1, "only the hasty one was ever refused"
    assert (report["hasty"]["status"], report["hasty"]["code"]) == (429, "rate_limited")
    stored = read_back(strict_service.url, report["token"], report["device_id"])
    assert {point["value"] for point in stored if point["measurement_name"] == "n"} >= set(range(8))


@pytest.mark.parametrize("language", ["python", "typescript"])
def test_503_is_retried_only_where_twice_is_once(
    language: str, request: pytest.FixtureRequest
) -> None:
    client: Installed = request.getfixturevalue(f"{language}_client")
    if language == "python":
        program = PROGRAMS / "retries.py"
    else:
        program = compiled(client, "retries", (PROGRAMS / "retries.ts").read_text())
    # The submission is refused twice and stored; by then the registration would be taken.
    with refusing(2, retry_after_s=0, status=503, always="/devices") as server:
        said = client.run(program, IOTFLOW_URL=server.url)
        asked = [(path, body) for _, path, body in server.asked]
    assert said.splitlines() == ["stored 1", "refused 503"]
    assert [path.rsplit("/", 1)[1] for path, _ in asked] == ["telemetry"] * 3 + ["register"]
    assert asked[0] == asked[1] == asked[2], "each attempt sends the same timestamp"


def test_the_quick_start_of_the_python_client(
    python_client: Installed, service: Served, tmp_path: Path
) -> None:
    program = tmp_path / "quick_start.py"
    text = quick_start(BUILD / "python" / "README.md", "python")
    program.write_text(text.replace("grace", "grace_python"))
    said = python_client.run(program, IOTFLOW_URL=service.url).splitlines()
    assert said[:2] == ["stored: 2", "refused: 422 nothing_accepted"]
    assert {line.split(" ", 2)[2] for line in said[2:]} == {"co2 612", "temperature 23.5"}


def test_the_quick_start_of_the_typescript_client(
    typescript_client: Installed, service: Served
) -> None:
    text = quick_start(BUILD / "typescript" / "README.md", "ts").replace("grace", "grace_ts")
    program = compiled(typescript_client, "quick_start", text)
    said = typescript_client.run(program, IOTFLOW_URL=service.url).splitlines()
    assert said[:2] == ["stored: 2", "refused: 422 nothing_accepted"]
    assert {line.split(" ", 1)[1] for line in said[2:]} == {"co2 612", "temperature 23.5"}


WRONG_PYTHON = {
    "a field that is not there": "device.serial_number",
    "a number for a name": "DeviceRegistration(name=1)",
    "a client without credentials": 'me.sync(client=connect("http://host"))',
}
PYTHON_PROGRAM = """
from iotflow_client import AuthenticatedClient, connect, ok
from iotflow_client.api.accounts import me
from iotflow_client.api.devices import get_device
from iotflow_client.models import DeviceRegistration

def name_of(client: AuthenticatedClient, device_id: int) -> str:
    device = ok(get_device.sync(device_id, client=client))
    {}
    return device.name
"""


def test_python_programs_are_type_checked(python_client: Installed) -> None:
    texts = {"right.py": "# pyright: strict\n" + (PROGRAMS / "main_job.py").read_text()} | {
        f"wrong{number}.py": PYTHON_PROGRAM.format(mistake)
        for number, mistake in enumerate(WRONG_PYTHON.values())
    }
    for name, text in texts.items():
        (python_client.home / name).write_text(text)
    options = ["--pythonpath", python_client.executable, "--level", "error"]
    pyright = str(Path(sys.executable).parent / "pyright")
    said = run(pyright, *options, *texts, cwd=python_client.home, expect=1)
    wrong = [line.split(".py:")[0] for line in said.splitlines() if " - error: " in line]
    assert [Path(each.strip()).name for each in wrong] == ["wrong0", "wrong1", "wrong2"], said


WRONG_TYPESCRIPT = {
    "a field that is not there": "device.serial_number;",
    "a number for a name": "registerDevice({ client, body: { name: 1 } });",
    "a path without its id": "getDevice({ client });",
}
TYPESCRIPT_PROGRAM = """
import { getDevice, ok, registerDevice, type Client } from "iotflow-client";
export async function nameOf(client: Client, id: number): Promise<string> {
  const device = await ok(getDevice({ client, path: { device_id: id } }));
  MISTAKE
  return device.name + String(registerDevice);
}
"""


def test_typescript_programs_are_type_checked(typescript_client: Installed) -> None:
    texts = {"right": TYPESCRIPT_PROGRAM.replace("MISTAKE", "")} | {
        what: TYPESCRIPT_PROGRAM.replace("MISTAKE", mistake)
        for what, mistake in WRONG_TYPESCRIPT.items()
    }
    for number, text in enumerate(texts.values()):
        (typescript_client.home / f"program{number}.ts").write_text(text)
    files = [f"program{number}.ts" for number in range(len(texts))]
    options = [*STRICT_TS, "--noEmit"]
    said = run(str(TSC), *options, *files, cwd=typescript_client.home, expect=2, **with_node())
    wrong = [line.split("(")[0] for line in said.splitlines() if ": error TS" in line]
    assert wrong == files[1:], said


def test_a_client_carries_the_version_of_the_service(
    python_client: Installed, typescript_client: Installed
) -> None:
    said = run(
        python_client.executable, "-c",
        "import importlib.metadata as m; print(m.version('iotflow-client'))",
        cwd=python_client.home,
    )  # fmt: skip
    assert said.strip() == version("iotflow")
    package = typescript_client.home / "node_modules" / "iotflow-client" / "package.json"
    assert f'"version": "{version("iotflow")}"' in package.read_text()


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _refusals(url: str) -> float:
    """How many answers were 429 so far."""
    answers = httpx.get(f"{url}/metrics", timeout=10).text.splitlines()
    refused = [line for line in answers if line.startswith("iotflow_http_requests_total")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in refused if 'status="429"' in line)
