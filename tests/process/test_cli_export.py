"""`iotflow export` against a served instance, and back in with `iotflow import csv`."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from iotflow.domain.times import format_ms
from tests.process.conftest import PASSWORD, Credentials, Served, register, served

FIRST_MS = 1_700_000_000_000
NUMBERS = 12_345  # more than one page
SPECIAL: list[Any] = [
    2**63 - 1, -(2**63), 2**53 + 1, 0.1, 1e300, -0.5, 40.0, True, False,
    'he said "no", then\nleft', "true", "12",
]  # fmt: skip
RANGE = ("--start", "2023-11-14T00:00:00Z", "--end", "2024-01-01T00:00:00Z")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("export") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def device(service: Served) -> Credentials:
    credentials = register(service.url)
    records = [{"timestamp": FIRST_MS + n, "data": {"n": n}} for n in range(NUMBERS)]
    records += [
        {"timestamp": FIRST_MS + n, "data": {f"special-{n}".replace("-", "_"): value}}
        for n, value in enumerate(SPECIAL)
    ]
    records.append({"timestamp": FIRST_MS, "data": {"t": {"value": 20, "unit": "°C"}}})
    for begin in range(0, len(records), 5000):
        body = {"records": records[begin : begin + 5000]}
        sent = httpx.post(
            f"{service.url}/api/v1/telemetry/batch", json=body, headers=credentials.key, timeout=30
        )
        assert sent.status_code == 201, sent.text
    return credentials


def expected() -> set[tuple[str, str, Any, str | None]]:
    points = {(format_ms(FIRST_MS + n), "n", n, None) for n in range(NUMBERS)}
    points |= {
        (format_ms(FIRST_MS + n), f"special_{n}", value, None) for n, value in enumerate(SPECIAL)
    }
    return points | {(format_ms(FIRST_MS), "t", 20, "°C")}


def iotflow(service: Served, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if "IOTFLOW" not in name}
    return subprocess.run(
        [sys.executable, "-m", "iotflow.cli.main", *arguments],
        env=inherited | {"IOTFLOW_URL": service.url} | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def export(
    service: Served, device: Credentials, output: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    arguments = ("export", str(device.device_id), "-o", str(output), *RANGE, *options)
    return iotflow(service, *arguments, IOTFLOW_TOKEN=device.token)


def keyed(points: Any) -> set[tuple[Any, ...]]:
    """With the types, as 1 == 1.0 == True."""
    return {(*point, type(point[2])) for point in points}


def test_csv_has_every_point_in_order(service: Served, device: Credentials, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    done = export(service, device, output)
    assert done.returncode == 0, done.stderr
    assert f"{len(expected()):,} points written" in done.stdout
    with output.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(expected())
    assert [row["timestamp"] for row in rows] == sorted(row["timestamp"] for row in rows)
    found = {row["measurement_name"]: row["value"] for row in rows}
    texts = [str(each).lower() if isinstance(each, bool) else str(each) for each in SPECIAL]
    assert [found[f"special_{n}"] for n in range(len(SPECIAL))] == texts
    assert [each.name for each in tmp_path.iterdir()] == ["out.csv"]


def test_ndjson_keeps_types(service: Served, device: Credentials, tmp_path: Path) -> None:
    output = tmp_path / "out.ndjson"
    assert export(service, device, output, "--format", "ndjson").returncode == 0
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == len(expected())
    found = {(r["timestamp"], r["measurement_name"], r["value"], r["unit"]) for r in rows}
    assert keyed(found) == keyed(expected())


def test_parquet_keeps_types(service: Served, device: Credentials, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    assert export(service, device, output, "--format", "parquet").returncode == 0
    rows = pq.read_table(output).to_pylist()
    assert len(rows) == len(expected())
    found: set[tuple[Any, ...]] = set()
    for row in rows:
        exact = [row[name] for name in ("value_int", "value_bool", "value_text")]
        value = next((each for each in exact if each is not None), row["value"])
        at = round(row["timestamp"].timestamp() * 1000)
        found.add((format_ms(at), row["measurement_name"], value, row["unit"]))
    assert keyed(found) == keyed(expected())


def test_only_some_measurements_of_a_range_of_years(
    service: Served, device: Credentials, tmp_path: Path
) -> None:
    """Longer than one query may span: it is asked for in several."""
    output = tmp_path / "out.csv"
    done = iotflow(
        service, "export", str(device.device_id), "-o", str(output), "--start",
        "2019-01-01T00:00:00Z", "--measurement", "t", "--measurement", "special_9",
        "-u", "ada", "--password", PASSWORD,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with output.open(newline="", encoding="utf-8") as file:
        rows = [
            (row["measurement_name"], row["value"], row["unit"]) for row in csv.DictReader(file)
        ]
    assert sorted(rows) == [("special_9", SPECIAL[9], ""), ("t", "20", "°C")]


def test_an_export_can_be_imported_into_another_device(
    service: Served, device: Credentials, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    assert export(service, device, first).returncode == 0
    other = register(service.url, "other")
    done = iotflow(service, "import", "csv", str(first), IOTFLOW_API_KEY=other.api_key)
    assert done.returncode == 0, done.stdout + done.stderr
    assert export(service, other, second).returncode == 0
    assert sorted(second.read_text().splitlines()) == sorted(first.read_text().splitlines())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("export", "99999", "-o", "{}/x.csv"), "404"),
        (("export", "1", "-o", "{}/no/x.csv"), "no folder"),
        (("export", "1", "-o", "{}/x.csv", "--start", "yesterday"), "--start"),
        (("export", "1", "-o", "{}/x.csv", "-u", "ada", "--password", "wrong"), "Wrong username"),
        (("export", "1", "-o", "{}/x.csv", "-u", "ada"), "--password"),
        (
            ("export", "1", "-o", "{}/x.csv", "--url", "http://127.0.0.1:9", "--patience", "0"),
            "cannot be reached",
        ),
    ],
)
def test_failures_are_one_line_and_leave_no_file(
    service: Served, device: Credentials, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    given = [each.format(tmp_path) for each in arguments]
    env = {"IOTFLOW_TOKEN": device.token}
    done = iotflow(service, *given, **env)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_older_file_stays_where_an_export_fails(
    service: Served, device: Credentials, tmp_path: Path
) -> None:
    output = tmp_path / "out.csv"
    output.write_text("precious")
    arguments = ("export", "99999", "-o", str(output))
    assert iotflow(service, *arguments, IOTFLOW_TOKEN=device.token).returncode == 2
    assert output.read_text() == "precious"
