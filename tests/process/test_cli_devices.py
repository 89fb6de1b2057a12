"""`iotflow devices import` against a served instance."""

import csv
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.process.conftest import Credentials, Served, register, served

API = "/api/v1"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("devices") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def owner(service: Served) -> Credentials:
    return register(service.url)


def run(url: str, token: str, file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if "IOTFLOW" not in name}
    return subprocess.run(
        [sys.executable, "-m", "iotflow.cli.main", "devices", "import", str(file), *options],
        env=inherited | {"IOTFLOW_URL": url, "IOTFLOW_TOKEN": token},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_devices_are_registered_and_their_keys_kept(
    service: Served, owner: Credentials, tmp_path: Path
) -> None:
    file = tmp_path / "fleet.csv"
    rows = [f"pump-{n},pump,Hall {n},{n % 2}," for n in range(25)]
    header = "name,device_type,location,label:line,description"
    file.write_text("\n".join([header, *rows, "", "x" * 129 + ",pump,,,", ",pump,,,"]) + "\n")
    report = tmp_path / "refused.csv"
    options = ("--report", str(report), "--batch-size", "10")
    done = run(service.url, owner.token, file, *options)
    assert done.returncode == 1, done.stderr
    assert "25 devices registered, 2 rows refused" in done.stdout
    keys = tmp_path / "fleet.keys.csv"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    kept = table(keys)
    assert [row["name"] for row in kept] == [f"pump-{n}" for n in range(25)]
    for row in kept[:: len(kept) - 1]:
        told = httpx.get(
            f"{service.url}{API}/devices/credentials", headers={"X-API-Key": row["api_key"]}
        ).json()
        assert (str(told["device_id"]), told["name"]) == (row["device_id"], row["name"])
    device = httpx.get(
        f"{service.url}{API}/devices/{kept[3]['device_id']}", headers=owner.bearer
    ).json()
    assert (device["location"], device["labels"]) == ("Hall 3", {"line": "1"})
    assert device["description"] is None
    refused = table(report)
    assert [(row["line"], row["code"]) for row in refused] == [
        ("28", "string_too_long"),
        ("29", "missing"),
    ]
    assert not any(row["api_key"] in done.stdout + done.stderr for row in kept)

    file.write_text(file.read_text() + "pump-25,pump,,,\n")
    again = run(service.url, owner.token, file, *options)
    assert "1 device registered, 2 rows refused" in again.stdout
    assert len(table(keys)) == 26
    params = {"device_type": "pump", "limit": "1000"}
    listed = httpx.get(f"{service.url}{API}/devices", params=params, headers=owner.bearer)
    assert len(listed.json()["items"]) == 26


def test_a_dry_run_sends_nothing(service: Served, owner: Credentials, tmp_path: Path) -> None:
    file = tmp_path / "fleet.csv"
    file.write_text("name;device_type\ndry-1;dry\n")
    done = run(service.url, owner.token, file, "--dry-run")
    assert (done.returncode, "1 device to register" in done.stdout) == (0, True)
    assert not (tmp_path / "fleet.keys.csv").exists()
    params = {"device_type": "dry"}
    listed = httpx.get(f"{service.url}{API}/devices", params=params, headers=owner.bearer)
    assert listed.json()["items"] == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no column 'name'"),
        (b"device_type\nx\n", "no column 'name'"),
        (b"name,colour\na,b\n", "no column 'colour'"),
        (b"name,name\na,b\n", "twice"),
        (b"name\na,b\n", "more cells"),
        (b"name\n\xff\n", "UTF-8"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_is_no_such_table_is_one_line(
    service: Served, owner: Credentials, tmp_path: Path, content: bytes, reason: str
) -> None:
    file = tmp_path / "fleet.csv"
    file.write_bytes(content)
    done = run(service.url, owner.token, file)
    assert done.returncode == 2
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "fleet.keys.csv").exists()


def test_a_file_that_is_something_else_is_not_overwritten(
    service: Served, owner: Credentials, tmp_path: Path
) -> None:
    file, keys = tmp_path / "fleet.csv", tmp_path / "notes.txt"
    file.write_text("name\na\n")
    keys.write_text("my notes\n")
    done = run(service.url, owner.token, file, "--keys", str(keys))
    assert (done.returncode, "something else" in done.stderr) == (2, True)
    assert keys.read_text() == "my notes\n"


def test_wrong_credentials_and_a_server_that_is_not_there(service: Served, tmp_path: Path) -> None:
    file = tmp_path / "fleet.csv"
    file.write_text("name\na\n")
    refused = run(service.url, "nonsense", file)
    assert (refused.returncode, "401" in refused.stderr) == (2, True)
    nobody = run("http://127.0.0.1:9", "nonsense", file)
    assert (nobody.returncode, "cannot be reached" in nobody.stderr) == (2, True)
