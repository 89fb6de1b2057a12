"""Secrets in the right and in the wrong places of every call: none shows up anywhere else.

Looked at are the log at its most talkative, the bodies of errors, the metrics and the events.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.process.conftest import START_TIMEOUT_S, environment, free_port

API = "/api/v1"
METRICS_TOKEN = "metrics-token-dZ83hq"
PASSWORD, NEW_PASSWORD = "pass-word-Vb61kx!", "new-pass-word-Qm42rt!"
WRONG = "wrong-secret-Lp97ws"
ADMIN_PASSWORD = "admin-pass-word-Xc55ya!"


@dataclass
class Service:
    """A service that logs all it can, and what it said."""

    client: httpx.Client
    log: Path
    secrets: dict[str, str] = field(default_factory=dict[str, str])
    errors: list[str] = field(default_factory=list[str])
    refused: int = 0

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        answer = self.client.request(method, path, **options)
        assert answer.status_code < 500, (method, path, answer.text)
        if answer.status_code >= 400 or answer.status_code == 207:
            self.errors.append(answer.text + str(answer.headers))
        return answer

    def made(self, name: str, answer: httpx.Response, *keys: str) -> Any:
        assert answer.is_success, answer.text
        found = answer.json()
        for key in keys:
            self.secrets[f"{name} {key}"] = found[key]
        return found


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    port, log = free_port(), tmp_path / "log"
    settings = {
        "IOTFLOW_LOG__LEVEL": "debug",
        "IOTFLOW_LOG__ACCESS": "all",
        "IOTFLOW_METRICS__TOKEN": METRICS_TOKEN,
        "IOTFLOW_ACCOUNTS__REGISTRATION": "open",
    }
    env = environment(tmp_path / "data", port, **settings)
    command = [sys.executable, "-m", "iotflow.cli.main"]
    made = subprocess.run(
        [*command, "admin", "create", "root", "root@example.com"],
        env=env | {"IOTFLOW_ADMIN_PASSWORD": ADMIN_PASSWORD},
        capture_output=True,
        timeout=60,
        check=True,
    )
    with log.open("wb") as sink:
        sink.write(made.stdout + made.stderr)
        process = subprocess.Popen([*command, "serve"], env=env, stdout=sink, stderr=sink)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            deadline = time.monotonic() + START_TIMEOUT_S
            while True:
                assert time.monotonic() < deadline
                try:
                    client.get("/health/ready").raise_for_status()
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
            yield Service(client, log)
    finally:
        process.terminate()
        process.wait(timeout=20)


def make_secrets(service: Service) -> tuple[dict[str, str], dict[str, str]]:
    """One of each kind, and the headers of the owner and of an admin."""
    secrets = service.secrets
    secrets |= {"password": PASSWORD, "new password": NEW_PASSWORD, "wrong": WRONG}
    secrets |= {"admin password": ADMIN_PASSWORD, "metrics": METRICS_TOKEN}
    root = service.send(
        "POST", f"{API}/auth/login", json={"username": "root", "password": ADMIN_PASSWORD}
    )
    admin = service.made("admin", root, "access_token", "refresh_token")
    as_admin = {"Authorization": f"Bearer {admin['access_token']}"}
    invited = service.send("POST", f"{API}/admin/invitations", headers=as_admin, json={})
    service.made("admin", invited, "invitation")
    account = {"username": "ada", "password": PASSWORD}
    service.send("POST", f"{API}/auth/register", json=account | {"email": "ada@example.com"})
    session = service.send("POST", f"{API}/auth/login", json=account)
    found = service.made("login", session, "access_token", "refresh_token")
    owner = {"Authorization": f"Bearer {found['access_token']}"}
    body = {"name": "a token", "scopes": ["read", "write"]}
    service.made(
        "personal", service.send("POST", f"{API}/auth/tokens", json=body, headers=owner), "token"
    )
    body = {"name": "a device"}
    device = service.send("POST", f"{API}/devices/register", json=body, headers=owner)
    number = service.made("device", device, "api_key")["device"]["id"]
    rotated = service.send("POST", f"{API}/devices/{number}/keys", json={}, headers=owner)
    service.made("rotation", rotated, "api_key")
    change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    assert service.send("POST", f"{API}/auth/password", json=change, headers=owner).is_success
    renewed = service.send(
        "POST", f"{API}/auth/refresh", json={"refresh_token": found["refresh_token"]}
    )
    service.made("refresh", renewed, "access_token", "refresh_token")
    return owner, as_admin


def misplace(service: Service, owner: dict[str, str]) -> int:
    """Every secret in every place of every call where it does not belong; how many calls."""
    paths = service.client.get("/openapi.json").json()["paths"]
    calls = 0
    for secret in service.secrets.values():
        everywhere = {
            "Authorization": f"Bearer {secret}",
            "X-API-Key": secret,
            "Cookie": f"session={secret}",
            "User-Agent": secret,
            "If-Match": f'"{secret}"',
            "Referer": f"http://service/?token={secret}",
        }
        body = {"password": secret, "data": {"a": {"value": secret, "unit": secret * 4}}}
        body |= {"refresh_token": secret, "timestamp": secret, "metadata": secret}
        for path, methods in paths.items():
            for method in methods:
                if path.endswith("/logout") or (method == "delete" and "{" not in path):
                    continue
                way = path.split("{", 1)[0] + secret if "{" in path else path
                query = {"cursor": secret, "limit": secret, "start_time": secret}
                for headers in (everywhere, owner):
                    wants_body = method in ("post", "put", "patch")
                    service.send(
                        method.upper(),
                        way,
                        params=query,
                        headers=headers,
                        json=body if wants_body else None,
                    )
                    calls += 1
        login = {"username": secret, "password": secret}
        service.send("POST", f"{API}/auth/login", json=login)
        service.send("POST", f"{API}/auth/login", content=f'{{"username": "{secret}'.encode())
        service.send("POST", f"{API}/auth/register", json=login | {"email": secret})
        service.send("POST", f"{API}/telemetry", headers={"X-API-Key": secret}, content=secret)
        service.send("GET", f"/metrics?token={secret}")
    return calls


def test_no_secret_shows_up_where_it_does_not_belong(service: Service) -> None:
    owner, admin = make_secrets(service)
    assert len(service.secrets) >= 12, sorted(service.secrets)
    assert misplace(service, owner) > 1_000
    metrics = service.client.get(
        "/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"}
    ).text
    assert "iotflow_http_requests_total" in metrics
    time.sleep(1)  # events are written behind the answers
    events = ""
    for headers in (owner, admin):
        answer = service.client.get(f"{API}/events", params={"limit": 1000}, headers=headers)
        events += answer.text
    assert "user.logged_in" in events
    log = service.log.read_text()
    assert log.count("\n") > 1_000, "it logs nothing: this would find nothing"
    assert len(service.errors) > 1_000
    places = {"log": log, "errors": "\n".join(service.errors), "metrics": metrics, "events": events}
    found = [
        (what, where, text[max(0, text.index(secret) - 200) :][:400])
        for what, secret in service.secrets.items()
        for where, text in places.items()
        if secret in text
    ]
    assert not found, found[:3]


def test_no_secret_is_kept_as_it_is(service: Service) -> None:
    make_secrets(service)
    data = service.log.parent / "data"
    files = [path for path in data.rglob("*") if path.is_file() and path.name != "secret_key"]
    kept = {path.name: path.read_bytes() for path in files}
    assert any(b"ada@example.com" in content for content in kept.values())
    for what, secret in service.secrets.items():
        for name, content in kept.items():
            assert secret.encode() not in content, (what, name)
    assert (data / "secret_key").stat().st_mode & 0o077 == 0
