"""`iotflow simulate` against a served instance: what it says is what is stored."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.process.conftest import PASSWORD, Served, register, served


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("simulate") / "data") as running:
        yield running


def begin(url: str, state: Path, *options: str) -> subprocess.Popen[str]:
    env = {name: value for name, value in os.environ.items() if "IOTFLOW" not in name}
    return subprocess.Popen(
        [sys.executable, "-m", "iotflow.cli.main", "simulate", "--state", str(state), *options],
        env=env | {"IOTFLOW_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def simulate(url: str, state: Path, *options: str) -> tuple[int, str, str]:
    process = begin(url, state, *options)
    printed, said = process.communicate(timeout=60)
    return process.returncode, printed, said


def figure(printed: str, name: str) -> int:
    found = re.search(rf"^│ *{re.escape(name)} *│ *([\d,]+) *│$", printed, re.MULTILINE)
    assert found, printed
    return int(found[1].replace(",", ""))


def account_of(state: Path) -> dict[str, Any]:
    accounts = json.loads(state.read_bytes())["accounts"]
    assert len(accounts) == 1
    found: dict[str, Any] = next(iter(accounts.values()))
    return found


def points(url: str, state: Path) -> list[tuple[int, str]]:
    """Device and time of each point that the fleet has."""
    found: list[tuple[int, str]] = []
    for device in account_of(state)["devices"].values():
        answer = httpx.get(
            f"{url}/api/v1/telemetry/{device['id']}",
            params={"start_time": "-24h", "limit": 10_000},
            headers={"X-API-Key": device["api_key"]},
        )
        assert answer.status_code == 200, answer.text
        found += [(device["id"], point["timestamp"]) for point in answer.json()["data"]]
    return found


def stored(url: str, state: Path) -> int:
    """How many points the fleet's devices have."""
    return len(points(url, state))


def test_two_runs_with_one_fleet(service: Served, tmp_path: Path) -> None:
    state = tmp_path / "fleet.json"
    options = ("--rate", "100", "--duration", "2", "--duplicates", "0", "--dropouts", "0.1")
    status, printed, said = simulate(service.url, state, "--devices", "4", *options)
    assert status == 0, printed + said
    assert "4 devices of 'simulator' ready" in said
    assert figure(printed, "due") == 200
    assert figure(printed, "acknowledged (201)") == 200 - figure(printed, "absent")
    assert stored(service.url, state) == figure(printed, "points acknowledged")
    assert stat.S_IMODE(state.stat().st_mode) == 0o600

    before = account_of(state)["devices"]
    status, again, said = simulate(service.url, state, "--devices", "6", *options)
    assert status == 0, again + said
    after = account_of(state)["devices"]
    assert list(after) == [f"sim-{n:04d}" for n in range(1, 7)]
    assert {name: after[name] for name in before} == before
    total = figure(printed, "points acknowledged") + figure(again, "points acknowledged")
    assert stored(service.url, state) == total


def test_duplicates_are_stored_once(service: Served, tmp_path: Path) -> None:
    state = tmp_path / "fleet.json"
    options = ("--rate", "100", "--duration", "2", "--late", "0", "-u", "twice", "--devices", "3")
    status, printed, said = simulate(service.url, state, *options, "--duplicates", "0.5")
    assert status == 0, printed + said
    assert figure(printed, "duplicate") > 50
    once = figure(printed, "points acknowledged") * figure(printed, "fresh")
    once /= figure(printed, "fresh") + figure(printed, "duplicate")
    assert stored(service.url, state) == pytest.approx(once, rel=0.1)


def test_ctrl_c_ends_it_with_a_summary(service: Served, tmp_path: Path) -> None:
    state = tmp_path / "fleet.json"
    process = begin(service.url, state, "--rate", "50", "-u", "stopped")
    assert process.stderr is not None
    assert "ready" in process.stderr.readline()
    deadline = time.monotonic() + 30
    while len(set(points(service.url, state))) < 30:  # a submission is of one time
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=20)
    assert process.returncode == 0, said
    assert figure(printed, "acknowledged (201)") > 10
    assert "Traceback" not in said


def test_a_lost_state_gives_the_same_devices_new_keys(service: Served, tmp_path: Path) -> None:
    state = tmp_path / "fleet.json"
    options = ("--devices", "2", "--duration", "0.5", "-u", "forgetful", "--password", PASSWORD)
    assert simulate(service.url, state, *options)[0] == 0
    before = account_of(state)["devices"]
    state.unlink()
    assert simulate(service.url, state, *options)[0] == 0
    after = account_of(state)["devices"]
    assert [each["id"] for each in after.values()] == [each["id"] for each in before.values()]
    assert all(after[name]["api_key"] != before[name]["api_key"] for name in before)


def test_a_server_that_goes_away_is_told_in_the_summary(tmp_path: Path) -> None:
    with served(tmp_path / "data") as service:
        process = begin(service.url, tmp_path / "fleet.json", "--rate", "50", "--duration", "2")
        assert process.stderr is not None
        assert "ready" in process.stderr.readline()
        time.sleep(0.5)
        service.kill()
        printed, said = process.communicate(timeout=40)
    assert process.returncode == 1
    assert figure(printed, "no answer at the end") > 10
    assert "Traceback" not in said


def test_failures_are_one_line(service: Served, tmp_path: Path) -> None:
    register(service.url, "taken")
    for options, expected in (
        (("-u", "taken"), "its password is not known"),
        (("-u", "taken", "--password", "wrong password"), "Wrong password"),
        (("-u", "a"), "422"),
        (("--state", "/no/such/folder/x"), "no folder"),
    ):
        state = tmp_path / "state.json"
        status, printed, said = simulate(service.url, state, *options)
        assert (status, printed) == (2, "")
        assert expected in said
        assert said.count("\n") == 1
