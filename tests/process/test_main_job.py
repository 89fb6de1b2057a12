"""The main job on real input: a year of hourly temperatures of two cities, in and out.

What the service answers is compared with the file, worked out here by other means.
"""

import csv
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from math import fsum
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
import vega_datasets

from tests.process.conftest import Credentials, register, served

ZONE = ZoneInfo("America/Los_Angeles")
YEAR = {"start_time": "2010-01-01T00:00:00-08:00", "end_time": "2011-01-01T00:00:00-08:00"}
FILES = Path(vega_datasets.__file__).parent / "_data"


@dataclass(frozen=True)
class Record:
    """A city's file as it should be in the store, and where it is."""

    url: str
    credentials: Credentials
    points: dict[datetime, float]

    def get(self, path: str, **params: Any) -> Any:
        answer = httpx.get(
            f"{self.url}/api/v1/telemetry/{self.credentials.device_id}{path}",
            params=params,
            headers=self.credentials.bearer,
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def day(self, day: date) -> list[float]:
        return [
            value for moment, value in self.points.items() if moment.astimezone(ZONE).date() == day
        ]


def read_file(path: Path) -> dict[datetime, float]:
    """Local hours become UTC; the skipped hour is what it would be an hour later."""
    points: dict[datetime, float] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            local = datetime.strptime(row["date"][:16], "%Y/%m/%d %H:%M").replace(tzinfo=ZONE)
            moment = local.astimezone(UTC)
            if moment.astimezone(ZONE).hour != local.hour:
                moment = local.replace(tzinfo=None, hour=local.hour + 1).replace(tzinfo=ZONE)
                moment = moment.astimezone(UTC)
            points[moment] = float(row["temp"])
    return points


def run_import(url: str, api_key: str, file: Path, *options: str) -> str:
    command = [
        sys.executable, "-m", "iotflow.cli.main", "import", "csv", str(file),
        "--timezone", "America/Los_Angeles", *options,
    ]  # fmt: skip
    env = os.environ | {"IOTFLOW_URL": url, "IOTFLOW_API_KEY": api_key}
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module", params=["seattle-temps.csv", "sf-temps.csv"])
def record(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Record]:
    directory = tmp_path_factory.mktemp("main-job")
    file = directory / request.param
    file.write_bytes((FILES / request.param).read_bytes())
    with served(directory / "data") as service:
        credentials = register(service.url)
        said = run_import(service.url, credentials.api_key, file)
        assert "8,759" in said or "8759" in said
        yield Record(service.url, credentials, read_file(file))


def test_every_hour_is_there_with_its_value(record: Record) -> None:
    found = record.get("", **YEAR, limit=10_000, order="asc", measurement="temp")
    assert found["count"] == len(record.points) == 8759
    assert not found["truncated"]
    stored = {datetime.fromisoformat(each["timestamp"]): each["value"] for each in found["data"]}
    assert stored == record.points


def test_count_minimum_and_maximum(record: Record) -> None:
    options = {"field": "temp", "aggregation": ["count", "min", "max"], "window": "1mo"}
    months = record.get("/aggregated", **YEAR, **options, timezone=ZONE.key)["data"]
    assert len(months) == 12
    assert sum(month["count"] for month in months) == 8759
    assert min(month["min"] for month in months) == min(record.points.values())
    assert max(month["max"] for month in months) == max(record.points.values())


@pytest.mark.parametrize("change", [date(2010, 3, 14), date(2010, 11, 7)])
def test_daily_means_across_a_clock_change(record: Record, change: date) -> None:
    days = [change + timedelta(days=n) for n in (-1, 0, 1)]
    start, end = (
        datetime(day.year, day.month, day.day, tzinfo=ZONE).isoformat()
        for day in (days[0], days[-1] + timedelta(days=1))
    )
    options = {"field": "temp", "aggregation": "mean", "window": "1d", "timezone": ZONE.key}
    found = record.get("/aggregated", start_time=start, end_time=end, **options)["data"]
    assert len(found) == 3
    for window, day in zip(found, days, strict=True):
        values = record.day(day)
        midnight = datetime(day.year, day.month, day.day, tzinfo=ZONE)
        assert datetime.fromisoformat(window["timestamp"]) == midnight
        assert window["count"] == len(values)
        assert window["mean"] == pytest.approx(fsum(values) / len(values), rel=1e-12)


def test_all_daily_means(record: Record) -> None:
    options = {"field": "temp", "aggregation": "mean", "window": "1d", "timezone": ZONE.key}
    found = record.get("/aggregated", **YEAR, **options)["data"]
    by_day: dict[date, list[float]] = defaultdict(list)
    for moment, value in record.points.items():
        by_day[moment.astimezone(ZONE).date()].append(value)
    expected = {day: fsum(values) / len(values) for day, values in by_day.items()}
    means = {
        datetime.fromisoformat(window["timestamp"]).astimezone(ZONE).date(): window["mean"]
        for window in found
    }
    assert means.keys() == expected.keys()
    assert all(means[day] == pytest.approx(mean, rel=1e-12) for day, mean in expected.items())


def test_the_latest_value(record: Record) -> None:
    newest = max(record.points)
    latest = record.get("/latest")
    assert datetime.fromisoformat(latest["timestamp"]) == newest
    assert latest["data"] == {"temp": record.points[newest]}


def test_a_year_thinned_for_a_chart(record: Record) -> None:
    data = record.get("/aggregated", **YEAR, field="temp", points=500)["data"]
    moments = [datetime.fromisoformat(each["timestamp"]) for each in data]
    series = sorted(record.points.items())
    assert moments == _thinned([moment.timestamp() * 1000 for moment, _ in series],
                               [value for _, value in series], 500)  # fmt: skip
    assert all(record.points[at] == each["value"] for at, each in zip(moments, data, strict=True))


def _thinned(xs: list[float], ys: list[float], count: int) -> list[datetime]:
    """LTTB by the book, with indices and areas."""
    every = (len(xs) - 2) / (count - 2)
    chosen = [0]
    for bucket in range(count - 2):
        begin, end = int(bucket * every) + 1, int((bucket + 1) * every) + 1
        after = range(end, min(int((bucket + 2) * every) + 1, len(xs)))
        mean_x = sum(xs[i] for i in after) / len(after)
        mean_y = sum(ys[i] for i in after) / len(after)
        a = chosen[-1]
        areas = [
            abs((xs[a] - mean_x) * (ys[i] - ys[a]) - (xs[a] - xs[i]) * (mean_y - ys[a]))
            for i in range(begin, end)
        ]
        chosen.append(begin + areas.index(max(areas)))
    chosen.append(len(xs) - 1)
    return [datetime.fromtimestamp(xs[i] / 1000, UTC) for i in chosen]


def test_importing_again_changes_nothing(record: Record, tmp_path: Path) -> None:
    file = tmp_path / "again.csv"
    rows = [("date", "temp")]
    for moment, value in sorted(record.points.items())[:200]:
        rows.append((moment.astimezone(ZONE).strftime("%Y/%m/%d %H:%M"), str(value)))
    with file.open("w", newline="") as target:
        csv.writer(target).writerows(rows)
    run_import(record.url, record.credentials.api_key, file)
    assert record.get("", **YEAR, limit=10_000)["count"] == 8759


def test_an_export_is_the_history(record: Record, tmp_path: Path) -> None:
    target = tmp_path / "year.csv"
    command = [
        sys.executable, "-m", "iotflow.cli.main", "export", str(record.credentials.device_id),
        "--start", YEAR["start_time"], "--end", YEAR["end_time"], "-o", str(target),
    ]  # fmt: skip
    env = os.environ | {"IOTFLOW_URL": record.url, "IOTFLOW_TOKEN": record.credentials.token}
    subprocess.run(command, env=env, check=True, capture_output=True, timeout=60)
    with target.open() as file:
        stored = {
            datetime.fromisoformat(row["timestamp"]): float(row["value"])
            for row in csv.DictReader(file)
        }
    assert stored == record.points
