"""A backup made under load, restored, and served: everything fits together, nothing is lost."""

import asyncio
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from iotflow.domain.points import Submission
from tests.process.conftest import PASSWORD, Credentials, environment, register, served

API = "/api/v1"
ENOUGH = 50


def run(data_dir: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "iotflow.cli.main", *arguments],
        env=environment(data_dir, 1, IOTFLOW_ADMIN_PASSWORD=PASSWORD, **settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Load:
    """Devices that submit, and new ones that are registered, until it is over."""

    def __init__(self, url: str, owner: Credentials) -> None:
        self.acknowledged: set[tuple[int, str]] = set()
        self._url = url
        self._owner = owner
        self._over = asyncio.Event()

    async def around(self, data_dir: Path, target: Path) -> tuple[set[tuple[int, str]], str]:
        """What was acknowledged before a backup begins that is made meanwhile, and its output."""
        async with httpx.AsyncClient(base_url=f"{self._url}{API}", timeout=20) as client:
            tasks = [asyncio.create_task(self._sender(client)) for _ in range(4)]
            async with asyncio.timeout(30):
                while len(self.acknowledged) <= ENOUGH:  # noqa: ASYNC110 - senders have no event
                    await asyncio.sleep(0.02)
            before = set(self.acknowledged)
            done = await asyncio.to_thread(run, data_dir, "backup", str(target))
            self._over.set()
            await asyncio.gather(*tasks)
        assert done.returncode == 0, done.stderr
        return before, done.stdout

    async def _sender(self, client: httpx.AsyncClient) -> None:
        number = 0
        while not self._over.is_set():
            if number % 20 == 0:
                body = {"name": f"d{id(asyncio.current_task())}-{number}"}
                made = await client.post("/devices/register", json=body, headers=self._owner.bearer)
                device = made.json()
            number += 1
            headers = {"X-API-Key": device["api_key"]}
            sent = await client.post("/telemetry", json={"data": {"n": number}}, headers=headers)
            assert sent.status_code == 201
            self.acknowledged.add((device["device"]["id"], sent.json()["timestamp"]))


def table(path: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[tuple[int, str]], Any]:
    """A backup made under load, what had been acknowledged before, and who owned it."""
    directory = tmp_path_factory.mktemp("backup")
    data_dir, target = directory / "data", directory / "backup"
    created = run(data_dir, "admin", "create", "root", "root@example.com")
    assert created.returncode == 0, created.stderr
    with served(data_dir) as service:
        owner = register(service.url)
        load = Load(service.url, owner)
        before, _ = asyncio.run(load.around(data_dir, target))
        assert len(load.acknowledged) > len(before)
    return target, before, owner


def test_it_is_for_its_owners_eyes_alone(made: tuple[Path, Any, Any]) -> None:
    target, _, _ = made
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in target.iterdir()}
    assert modes.pop("manifest.json") & 0o077 in (0, 0o044)
    assert modes == dict.fromkeys(("events.db", "telemetry.db", "registry.db", "secret_key"), 0o600)


def test_every_file_fits_to_the_others(made: tuple[Path, Any, Any]) -> None:
    target, _, _ = made
    devices = {row[0] for row in table(target / "registry.db", "SELECT id FROM devices")}
    points = {row[0] for row in table(target / "telemetry.db", "SELECT device_id FROM points")}
    for (submissions,) in table(target / "telemetry.db", "SELECT submissions FROM journal"):
        decoded = msgspec.msgpack.decode(submissions, type=list[Submission])
        points |= {submission.device_id for submission in decoded}
    of_events = table(
        target / "events.db",
        "SELECT DISTINCT device_id FROM events WHERE event_type = 'telemetry.submitted'",
    )
    assert len(points) > 1
    assert points | {row[0] for row in of_events} <= devices


def test_what_it_restores_is_served_with_everything(
    made: tuple[Path, set[tuple[int, str]], Credentials], tmp_path: Path
) -> None:
    target, before, owner = made
    data_dir = tmp_path / "data"
    done = run(data_dir, "restore", str(target))
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE((data_dir / "secret_key").stat().st_mode) == 0o600
    with served(data_dir, IOTFLOW_JOBS__SETTLE_S="0.2") as service:
        with httpx.Client(base_url=f"{service.url}{API}", timeout=20) as client:
            # A token that was signed before: the secret came with the backup.
            assert client.get("/users/me", headers=owner.bearer).status_code == 200
            found: set[tuple[int, str]] = set()
            for device_id in sorted({device_id for device_id, _ in before}):
                answer = client.get(
                    f"/telemetry/{device_id}", params={"limit": 10_000}, headers=owner.bearer
                )
                found |= {(device_id, each["timestamp"]) for each in answer.json()["data"]}
            assert before <= found
        verified = verify(data_dir, service.url)
        assert verified.returncode == 0, verified.stdout + verified.stderr


def verify(data_dir: Path, url: str) -> subprocess.CompletedProcess[str]:
    """The replay that the backup has asked for comes first: jobs go in their order."""
    return run(data_dir, "verify", "-u", "root", "--password", PASSWORD, "--url", url)


def test_what_is_there_is_replaced_only_by_force(
    made: tuple[Path, Any, Any], tmp_path: Path
) -> None:
    target, _, _ = made
    data_dir = tmp_path / "data"
    assert run(data_dir, "restore", str(target)).returncode == 0
    was = (data_dir / "registry.db").read_bytes()
    (data_dir / "telemetry.db-wal").write_bytes(b"of the file before")
    refused = run(data_dir, "restore", str(target))
    assert (refused.returncode, "--force" in refused.stderr) == (2, True)
    assert (data_dir / "telemetry.db-wal").exists()
    forced = run(data_dir, "restore", str(target), "--force")
    assert forced.returncode == 0, forced.stderr
    assert not (data_dir / "telemetry.db-wal").exists()
    (aside,) = data_dir.glob("replaced-*")
    assert (aside / "registry" / "registry.db").read_bytes() == was
    assert (aside / "telemetry" / "telemetry.db-wal").read_bytes() == b"of the file before"


def test_a_directory_that_is_served_is_left_alone(
    made: tuple[Path, Any, Any], tmp_path: Path
) -> None:
    target, _, _ = made
    data_dir = tmp_path / "data"
    with served(data_dir):
        refused = run(data_dir, "restore", str(target), "--force")
    assert refused.returncode == 2
    assert "Stop it first" in refused.stderr
    assert not list(data_dir.glob("replaced-*"))


@pytest.mark.parametrize("name", ["telemetry.db", "secret_key", "manifest.json"])
def test_a_backup_that_was_changed_is_refused(
    made: tuple[Path, Any, Any], tmp_path: Path, name: str
) -> None:
    target, _, _ = made
    spoilt = tmp_path / "spoilt"
    spoilt.mkdir()
    for path in target.iterdir():
        (spoilt / path.name).write_bytes(path.read_bytes())
    with (spoilt / name).open("r+b") as file:
        file.seek(10)
        file.write(b"\0\0\0\0")
    refused = run(tmp_path / "data", "restore", str(spoilt))
    assert refused.returncode == 2, refused.stdout
    assert "spoilt" in refused.stderr
    assert not (tmp_path / "data" / "registry.db").exists()


def test_of_a_stopped_service_too_and_never_over_another(
    made: tuple[Path, Any, Any], tmp_path: Path
) -> None:
    target, _, _ = made
    data_dir, again = tmp_path / "data", tmp_path / "again"
    assert run(data_dir, "restore", str(target)).returncode == 0
    assert run(data_dir, "backup", str(again)).returncode == 0
    assert (again / "manifest.json").is_file()
    refused = run(data_dir, "backup", str(again))
    assert (refused.returncode, "is there already" in refused.stderr) == (2, True)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".again")]


def test_stores_on_servers_are_named_with_their_tools(tmp_path: Path) -> None:
    settings = {
        "IOTFLOW_REGISTRY__URL": "postgresql://x:y@127.0.0.1/z",
        "IOTFLOW_TELEMETRY__URL": "cassandra://127.0.0.1/iotflow",
        "IOTFLOW_EVENTS__URL": "mongodb://127.0.0.1/iotflow",
    }
    refused = run(tmp_path, "backup", str(tmp_path / "backup"), **settings)
    assert refused.returncode == 2
    for tool in ("pg_dump", "nodetool snapshot", "mongodump"):
        assert tool in refused.stderr
    assert list(tmp_path.iterdir()) == []
