"""Replay, verification and warming on PostgreSQL, Cassandra, Redis and MongoDB."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from pymongo import MongoClient

from tests.process.conftest import PASSWORD, environment, register, served
from tests.servers.stores import four_stores

pytestmark = pytest.mark.servers
API = "/api/v1"
DEVICES, SUBMISSIONS = 3, 8


def command(settings: dict[str, str], tmp_path: Path, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "iotflow.cli.main", *arguments],
        env=environment(tmp_path, 1, IOTFLOW_ADMIN_PASSWORD=PASSWORD, **settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


def until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_the_event_store_lost_comes_back_and_verify_says_so(tmp_path: Path) -> None:
    with four_stores() as settings:
        command(settings, tmp_path, "admin", "create", "root", "root@example.com")
        with (
            served(tmp_path, IOTFLOW_JOBS__SETTLE_S="0.3", **settings) as service,
            MongoClient[dict[str, Any]](settings["IOTFLOW_EVENTS__URL"]) as mongo,
        ):
            events = mongo.get_default_database()["events"]
            devices = fill(service.url)

            def run(*arguments: str) -> Any:
                credentials = ("-u", "root", "--password", PASSWORD, "--url", service.url)
                return command(settings, tmp_path, *arguments, *credentials, "--json")

            submitted = {"event_type": "telemetry.submitted"}
            until(lambda: events.count_documents(submitted) == DEVICES * SUBMISSIONS)
            logged = {each["_id"]: each for each in events.find(submitted)}
            clean = run("verify", "--from", "-1h")
            assert clean["findings"] == []
            assert clean["counts"]["submissions"] == DEVICES * SUBMISSIONS
            events.delete_many(submitted | {"device_id": {"$in": devices[1:]}})
            spoil_cache(settings["IOTFLOW_CACHE__URL"], devices[0])
            found = run("verify", "--from", "-1h")
            missing = (DEVICES - 1) * SUBMISSIONS
            assert found["counts"]["events_missing"] == missing
            assert found["counts"]["latest_in_cache"] == 1
            replayed = run("events", "replay", "--from", "-1h", "--device", str(devices[1]))
            assert replayed["counts"]["events"] == SUBMISSIONS
            run("verify", "--from", "-1h", "--repair")
            assert run("verify", "--from", "-1h")["findings"] == []
            assert {each["_id"]: each for each in events.find(submitted)} == logged
            warmed = run("cache", "warm")
            assert warmed["counts"]["devices"] == DEVICES


def fill(url: str) -> list[int]:
    """Devices that have submitted, their latest values read once; gives their ids."""
    ids: list[int] = []
    for number in range(DEVICES):
        owner = register(url, f"user-{number}")
        ids.append(owner.device_id)
        with httpx.Client(base_url=f"{url}{API}", headers=owner.key, timeout=20) as client:
            for each in range(SUBMISSIONS - 1):
                client.post("/telemetry", json={"data": {"a": each, "b": 1.5}}).raise_for_status()
            now_ms = int(time.time() * 1000)
            records = [
                {"timestamp": now_ms - 60_000 * each, "data": {"c": each}} for each in range(5)
            ]
            client.post("/telemetry/batch", json={"records": records}).raise_for_status()
            client.get(f"/telemetry/{owner.device_id}/latest").raise_for_status()
    return ids


def spoil_cache(url: str, device_id: int) -> None:
    """Take one measurement out of a complete entry, as no path of the service does."""
    with redis.Redis.from_url(url) as client:
        assert client.hdel(f"device:latest:{{{device_id}}}", "b") == 1
