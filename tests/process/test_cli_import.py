"""`iotflow import csv` against a served instance: breaking off, going on, and reporting."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from tests.process.conftest import Credentials, Served, free_port, register, served

ROWS = 6_000
BAD_LINES = [5, 17, 3000, ROWS]
FIRST = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("import") / "data") as running:
        yield running


def environment(url: str, api_key: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if "IOTFLOW" not in name}
    return inherited | {"IOTFLOW_URL": url, "IOTFLOW_API_KEY": api_key}


def command(file: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "iotflow.cli.main", "import", "csv", str(file), *options]


def run(url: str, api_key: str, file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(file, *options),
        env=environment(url, api_key),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def begin(url: str, api_key: str, file: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(file, *options),
        env=environment(url, api_key),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_batches(file: Path, process: subprocess.Popen[str], batches: int) -> None:
    """Until so many batches are acknowledged."""
    state, deadline = state_of(file), time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if state.exists() and json.loads(state.read_bytes())["batches"] >= batches:
            return
        time.sleep(0.002)
    raise AssertionError("the import did not get on")


def state_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.import-state.json")


def long_file(path: Path) -> Path:
    """Row n has the value n; some lines are bad."""
    with path.open("w", newline="") as target:
        rows = csv.writer(target)
        rows.writerow(["time", "n"])
        for n in range(ROWS):
            bad = n + 2 in BAD_LINES
            rows.writerow([(FIRST + timedelta(minutes=n)).isoformat(), "NaN" if bad else n])
    return path


def stored(url: str, credentials: Credentials) -> list[int]:
    params: dict[str, str | int] = {
        "start_time": "2026-01-01T00:00:00Z", "end_time": "2026-12-31T00:00:00Z",
        "order": "asc", "limit": 10_000,
    }  # fmt: skip
    values: list[int] = []
    path = f"{url}/api/v1/telemetry/{credentials.device_id}"
    while True:
        page = httpx.get(path, params=params, headers=credentials.key, timeout=30).json()
        values += [point["value"] for point in page["data"]]
        if page["next_cursor"] is None:
            return values
        params["cursor"] = page["next_cursor"]


EXPECTED = [n for n in range(ROWS) if n + 2 not in BAD_LINES]


def test_it_goes_on_after_the_server_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setattr("tests.process.conftest.free_port", lambda: port)
    files = tmp_path / "files"
    files.mkdir()
    file, report = long_file(files / "long.csv"), files / "report.csv"
    options = ("--batch-size", "25", "--patience", "0.3", "--report", str(report))
    with served(tmp_path / "data") as service:
        credentials = register(service.url)
        process = begin(service.url, credentials.api_key, file, *options)
        wait_for_batches(file, process, 40)
        service.kill()
        _, said = process.communicate(timeout=30)
        assert process.returncode == 2
        assert said.count("\n") == 1
        assert "run the same command again" in said
    acknowledged = json.loads(state_of(file).read_bytes())["accepted"]
    assert 0 < acknowledged < len(EXPECTED)
    with served(tmp_path / "data") as service:
        assert acknowledged <= len(stored(service.url, credentials)) <= acknowledged + 25
        again = run(service.url, credentials.api_key, file, *options)
        assert again.returncode == 1, again.stderr
        assert f"Going on after {acknowledged:,} points" in again.stderr
        assert f"{len(EXPECTED):,} points accepted, 4 rejected, from 6,000 rows" in again.stdout
        assert stored(service.url, credentials) == EXPECTED
    with report.open(newline="") as found:
        assert [int(row["line"]) for row in csv.DictReader(found)] == BAD_LINES
    assert sorted(each.name for each in files.iterdir()) == ["long.csv", "report.csv"]


def test_it_goes_on_after_ctrl_c_and_waits_for_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setattr("tests.process.conftest.free_port", lambda: port)
    file = long_file(tmp_path / "long.csv")
    options = ("--batch-size", "25", "--patience", "60")
    with served(tmp_path / "data") as service:
        credentials = register(service.url)
        process = begin(service.url, credentials.api_key, file, *options)
        wait_for_batches(file, process, 20)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 130
        assert said.startswith("Interrupted. ")
        assert "Traceback" not in said
        process = begin(service.url, credentials.api_key, file, *options)
        wait_for_batches(file, process, 60)
        service.kill()
    with served(tmp_path / "data") as service:
        printed, said = process.communicate(timeout=60)
        assert process.returncode == 1, said
        assert f"{len(EXPECTED):,} points accepted, 4 rejected" in printed
        assert stored(service.url, credentials) == EXPECTED


def test_another_file_under_the_same_name_begins_anew(service: Served, tmp_path: Path) -> None:
    credentials = register(service.url, "anew")
    file = long_file(tmp_path / "long.csv")
    process = begin(service.url, credentials.api_key, file, "--batch-size", "25")
    wait_for_batches(file, process, 5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    file.write_text("time,n\n2026-06-01T00:00:00Z,-1\n")
    again = run(service.url, credentials.api_key, file)
    assert again.returncode == 0, again.stderr
    assert "from the beginning" in again.stderr
    assert "1 point accepted, 0 rejected, from 1 row." in again.stdout
    assert -1 in stored(service.url, credentials)


def test_what_is_rejected_is_reported_by_reason(service: Served, tmp_path: Path) -> None:
    credentials = register(service.url, "report")
    file, report = tmp_path / "odd.csv", tmp_path / "report.csv"
    file.write_text(
        "time,a,b\n"
        "2026-01-01T00:00:00Z,1,x\n"
        "2026-01-01T00:01:00Z,NaN,x\n"
        "2999-01-01T00:00:00Z,3,x\n"
        "broken,4,x\n"
        "2026-01-01T00:04:00Z,inf,x\n"
        "2026-01-01T00:05:00Z,6\n"
    )
    done = run(service.url, credentials.api_key, file, "--report", str(report))
    assert done.returncode == 1
    assert "4 points accepted, 5 rejected, from 6 rows." in done.stdout
    for code in ("not_finite", "timestamp_in_future", "invalid_timestamp", "wrong_cell_count"):
        assert code in done.stdout
    with report.open(newline="") as found:
        rows = [
            (row["line"], row["time"], row["measurement"], row["code"])
            for row in csv.DictReader(found)
        ]
    assert sorted(rows) == [
        ("3", "2026-01-01T00:01:00Z", "a", "not_finite"),
        ("4", "2999-01-01T00:00:00Z", "", "timestamp_in_future"),
        ("5", "broken", "", "invalid_timestamp"),
        ("6", "2026-01-01T00:04:00Z", "a", "not_finite"),
        ("7", "", "", "wrong_cell_count"),
    ]


def test_a_dry_run_sends_nothing_and_needs_no_server(tmp_path: Path) -> None:
    file = long_file(tmp_path / "long.csv")
    done = run("http://127.0.0.1:9", "iotd_none", file, "--dry-run")
    assert done.returncode == 1
    assert "5,996 points in 5,996 records would be sent, 4 rejected" in done.stdout
    assert [each.name for each in tmp_path.iterdir()] == ["long.csv"]


def test_a_rate_limit_is_waited_for(tmp_path: Path) -> None:
    """The batch is larger than the limit lets through at once: it goes in parts."""
    limits = {
        "IOTFLOW_RATE_LIMITS__ENABLED": "true",
        "IOTFLOW_RATE_LIMITS__POINTS": "400/1",
    }
    file = tmp_path / "year.csv"
    rows = (f"{(FIRST + timedelta(hours=n)).isoformat()},{n}" for n in range(600))
    file.write_text("time,n\n" + "\n".join(rows))
    with served(tmp_path / "data", **limits) as service:
        credentials = register(service.url)
        done = run(service.url, credentials.api_key, file)
        assert done.returncode == 0, done.stderr
        assert "600 points accepted" in done.stdout
        assert stored(service.url, credentials) == list(range(600))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--api-key", "iotd_wrong"), "Check --api-key"),
        (("--url", "http://127.0.0.1:9"), "cannot be reached"),
        (("--url", "127.0.0.1"), "--url: write it as"),
        (("--timezone", "Mars/Base"), "no zone 'Mars/Base'"),
        (("--report", "/no/such/folder/report.csv"), "no folder"),
        (("--state", "/no/such/folder/state.json"), "--state"),
    ],
)
def test_failures_are_one_line(
    service: Served, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    credentials = register(service.url, f"user-{abs(hash(options)) % 10**9}")
    file = tmp_path / "a.csv"
    file.write_text("time,a\n2026-01-01T00:00:00Z,1\n")
    done = run(service.url, credentials.api_key, file, *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    done = run("http://127.0.0.1:9", "k", tmp_path / "none.csv")
    assert done.returncode == 2
    assert "none.csv cannot be read (No such file or directory)" in done.stderr
    assert done.stderr.count("\n") == 1
