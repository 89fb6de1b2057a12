"""Starting and stopping the service from the command line."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.process.conftest import environment, free_port, register, served


def iotflow(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "iotflow.cli.main", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_it_says_where_it_serves_and_where_the_data_lies(tmp_path: Path) -> None:
    with served(tmp_path) as service:
        service.process.send_signal(signal.SIGTERM)
        status = service.process.wait(timeout=20)
    assert status in (0, -signal.SIGTERM)
    assert service.log.read_text().splitlines() == [
        f"IoTFlow serves on {service.url} (API explorer: {service.url}/docs)",
        f"Data: {tmp_path}",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IOTFLOW_PORT", "eight"),
        ("IOTFLOW_RATE_LIMITS__INGEST", "many"),
        ("IOTFLOW_TELEMETRY__ULR", "sqlite:///x.db"),
        ("IOTFLOW_CACHE__URL", "memcached://127.0.0.1"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_one_line(
    tmp_path: Path, name: str, value: str
) -> None:
    ended = iotflow("serve", env=environment(tmp_path, 0) | {name: value})
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"iotflow: {name}: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["IOTFLOW_SECRET_KEY", "IOTFLOW_PREVIOUS_SECRET_KEYS"])
def test_a_short_signing_secret_stops_the_start(tmp_path: Path, name: str) -> None:
    short = "s3cret" * 5
    ended = iotflow("serve", env=environment(tmp_path, free_port()) | {name: short})
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"iotflow: {name}: at least 32 characters")
    assert ended.stderr.count("\n") == 1
    assert short not in ended.stderr


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("IOTFLOW_REGISTRY__URL", "postgresql://me:s3cret@[bad/iotflow"),
        ("IOTFLOW_TELEMETRY__URL", "cassandra://me:s3cret@h/UPPER"),
        ("IOTFLOW_TELEMETRY__URL", "postgresql://me:s3cret@h:5432:1/iotflow"),
        ("IOTFLOW_CACHE__URL", "redis://me:s3cret@h/first"),
        ("IOTFLOW_CACHE__URL", "redis+cluster://me:s3cret@h,[::1"),
        ("IOTFLOW_CACHE__URL", "memcached://s3cret"),
        ("IOTFLOW_EVENTS__URL", "mongodb://me:s3cret@[bad/iotflow"),
    ],
)
def test_a_url_that_cannot_work_stops_the_start(tmp_path: Path, name: str, url: str) -> None:
    given = {name: url, "IOTFLOW_SECRET_KEY": "k" * 40}
    ended = iotflow("serve", env=environment(tmp_path, free_port()) | given)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"iotflow: {name}: ")
    assert ended.stderr.count("\n") == 1
    assert "s3cret" not in ended.stderr


def test_a_port_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    with served(tmp_path / "one") as service:
        port = int(service.url.rsplit(":", 1)[1])
        ended = iotflow("serve", env=environment(tmp_path / "two", port))
    assert ended.returncode == 2
    assert f"127.0.0.1:{port}" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_data_directory_belongs_to_one_process(tmp_path: Path) -> None:
    with served(tmp_path):
        ended = iotflow("serve", env=environment(tmp_path, free_port()))
    assert ended.returncode != 0
    assert "another process serves" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_several_workers_on_embedded_stores_are_refused(tmp_path: Path) -> None:
    ended = iotflow("serve", "--workers", "2", env=environment(tmp_path, 0))
    assert ended.returncode == 2
    assert "cannot share embedded stores" in ended.stderr


def test_an_admin_is_made_on_the_command_line(tmp_path: Path) -> None:
    env = environment(tmp_path, 0) | {"IOTFLOW_ADMIN_PASSWORD": "a password of an admin"}
    made = iotflow("admin", "create", "root", "root@example.com", env=env)
    assert made.returncode == 0, made.stderr
    again = iotflow("admin", "create", "root", "root@example.com", env=env)
    assert (again.returncode, again.stderr) == (2, "iotflow: This username is taken.\n")
    with served(tmp_path) as service:
        body = {"username": "root", "password": "a password of an admin"}
        session = httpx.post(f"{service.url}/api/v1/auth/login", json=body).json()
        assert session["user"]["role"] == "admin"
        theirs = register(service.url, "someone")
        headers = {"Authorization": f"Bearer {session['access_token']}"}
        url = f"{service.url}/api/v1/devices/{theirs.device_id}"
        assert httpx.get(url, headers=headers).status_code == 200


def test_migrate_says_what_it_did(tmp_path: Path) -> None:
    env = environment(tmp_path, 0)
    first = iotflow("migrate", env=env)
    assert first.returncode == 0, first.stderr
    assert all("migrated to" in line for line in first.stdout.splitlines())
    assert len(first.stdout.splitlines()) == 3
    assert "migrated to" not in iotflow("migrate", env=env).stdout


def test_what_was_queued_is_written_before_it_stops(tmp_path: Path) -> None:
    with served(tmp_path) as service:
        credentials = register(service.url)
        for number in range(50):
            body = {"data": {"number": number}}
            sent = httpx.post(f"{service.url}/api/v1/telemetry", json=body, headers=credentials.key)
            assert sent.status_code == 201
    with closing(sqlite3.connect(tmp_path / "events.db")) as events:
        rows = events.execute(
            "SELECT details FROM events WHERE event_type = 'telemetry.submitted'"
        ).fetchall()
    assert len(rows) == 50
    assert json.loads(rows[0][0]) == {"measurements": ["number"], "count": 1}


def test_a_connection_that_lies_about_its_length_harms_nobody(tmp_path: Path) -> None:
    import socket

    with served(tmp_path) as service:
        credentials = register(service.url)
        port = int(service.url.rsplit(":", 1)[1])
        head = (
            "POST /api/v1/telemetry HTTP/1.1\r\nHost: x\r\n"
            f"X-API-Key: {credentials.api_key}\r\nContent-Length: "
        )
        for length, status in (("5000000", b"413"), ("99999999999999999999", b"4"), ("-5", b"400")):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
                raw.sendall(f"{head}{length}\r\n\r\n{{}}".encode())
                assert raw.recv(100).split(b" ")[1].startswith(status), length
        with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
            raw.sendall(f'{head}500\r\n\r\n{{"data": {{"a": 1}}}}'.encode())
        body = {"data": {"a": 1}}
        began = time.monotonic()
        sent = httpx.post(f"{service.url}/api/v1/telemetry", json=body, headers=credentials.key)
        assert sent.status_code == 201
        assert time.monotonic() - began < 5
        health = httpx.get(f"{service.url}/health", params={"detailed": True}).json()
        assert health["status"] == "healthy"
