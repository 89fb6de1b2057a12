"""`iotflow events replay`, `verify` and `cache warm` against a served instance."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.process.conftest import PASSWORD, Credentials, Served, environment, register, served

API = "/api/v1"


@dataclass
class World:
    service: Served
    data_dir: Path
    owner: Credentials

    def run(self, *arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if "IOTFLOW" not in name}
        options = {"IOTFLOW_URL": self.service.url} | changed
        credentials = () if "IOTFLOW_TOKEN" in changed else ("-u", "root", "--password", PASSWORD)
        return subprocess.run(
            [sys.executable, "-m", "iotflow.cli.main", *arguments, *credentials],
            env=inherited | options,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def events(self, statement: str) -> list[Any]:
        path = self.data_dir / "events.db"
        with closing(sqlite3.connect(path, timeout=10)) as connection, connection:
            return connection.execute(statement).fetchall()

    def until_events(self, number: int) -> None:
        counted = "SELECT count(*) FROM events WHERE event_type = 'telemetry.submitted'"
        for _ in range(100):
            if self.events(counted) == [(number,)]:
                return
            time.sleep(0.05)
        raise AssertionError(self.events(counted))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    data_dir = tmp_path_factory.mktemp("maintenance") / "data"
    subprocess.run(
        [sys.executable, "-m", "iotflow.cli.main", "admin", "create", "root", "root@example.com"],
        env=environment(data_dir, 1, IOTFLOW_ADMIN_PASSWORD=PASSWORD),
        check=True,
        capture_output=True,
        timeout=60,
    )
    with served(data_dir, IOTFLOW_JOBS__SETTLE_S="0.2") as service:
        owner = register(service.url)
        with httpx.Client(base_url=f"{service.url}{API}", headers=owner.key) as client:
            for number in range(30):
                client.post("/telemetry", json={"data": {"n": number}}).raise_for_status()
        world = World(service, data_dir, owner)
        world.until_events(30)
        yield world


def test_lost_events_are_found_replayed_and_found_no_more(world: World) -> None:
    lost = "DELETE FROM events WHERE event_type = 'telemetry.submitted' AND timestamp_ms % 2 = 0"
    world.events(lost)
    found = world.run("verify")
    assert found.returncode == 1, found.stderr
    assert "events_missing" in found.stdout
    replayed = world.run("events", "replay", "--from", "-1h", "--json")
    assert replayed.returncode == 0, replayed.stderr
    job = json.loads(replayed.stdout)
    assert job["counts"]["submissions"] == 30
    assert 0 < job["counts"]["events"] < 31
    world.until_events(30)
    again = world.run("events", "replay", "--from", "-1h", "--late", "1d")
    assert again.returncode == 0, again.stderr
    assert "submissions" in again.stdout
    world.until_events(30)
    clean = world.run("verify", "--from", "-1h", "--json")
    assert clean.returncode == 0, clean.stdout + clean.stderr
    assert json.loads(clean.stdout)["findings"] == []


def test_verify_repairs_what_it_is_asked_to(world: World) -> None:
    world.events("DELETE FROM events WHERE event_type = 'telemetry.submitted'")
    repaired = world.run("verify", "--repair", "--device", str(world.owner.device_id))
    assert repaired.returncode == 1, repaired.stderr
    world.until_events(30)
    assert world.run("verify").returncode == 0


def test_a_job_can_be_left_alone_and_followed_later(world: World) -> None:
    begun = world.run("cache", "warm", "--no-wait")
    assert begun.returncode == 0, begun.stderr
    number = begun.stdout.split()[1]
    followed = world.run("cache", "warm", "--job", number, "--json")
    assert followed.returncode == 0, followed.stderr
    job = json.loads(followed.stdout)
    assert (job["kind"], job["status"], str(job["id"])) == ("cache_warming", "done", number)
    assert job["counts"]["devices"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("events", "replay"), "--from"),
        (("events", "replay", "--from", "yesterday"), "This is not a time"),
        (("events", "replay", "--from", "-1h", "--late", "long"), "--late"),
        (("verify", "--job", "99999"), "no such job"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    world: World, arguments: tuple[str, ...], said: str
) -> None:
    refused = world.run(*arguments)
    assert refused.returncode == 2, refused.stdout
    assert said in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_an_owner_is_no_administrator(world: World) -> None:
    refused = world.run("events", "replay", "--from", "-1h", IOTFLOW_TOKEN=world.owner.token)
    assert refused.returncode == 2
    assert "administrator" in refused.stderr
