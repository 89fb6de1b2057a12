"""Backups of stores in any place and of any age, and what a restore finds where it goes."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from iotflow.cli.backup_run import run_backup
from iotflow.cli.operate import create_admin, migrate_stores
from iotflow.cli.restore_run import run_restore
from iotflow.errors import ConfigurationError
from iotflow.settings import EventSettings, Settings, StoreSettings

ROLES = ("events", "registry", "telemetry")
PASSWORD = "correct horse battery"


def rows(path: Path, statement: str, *values: Any) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement, values).fetchall()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Stores with an administrator."""
    data_dir = tmp_path / "data"
    migrate_stores(data_dir)
    create_admin("root", "root@example.com", PASSWORD, data_dir)
    return data_dir


def settings(data_dir: Path) -> Settings:
    return Settings.load(data_dir=data_dir)


def elsewhere(parent: Path) -> Settings:
    """Every store in a file of the same name."""
    urls = {role: f"sqlite:///{parent}/{role}/iotflow.db" for role in ROLES}
    return Settings.load(
        data_dir=parent / "data",
        events=EventSettings(url=urls["events"]),
        registry=StoreSettings(url=urls["registry"]),
        telemetry=StoreSettings(url=urls["telemetry"]),
    )


def test_stores_may_all_have_the_same_file_name(data_dir: Path, tmp_path: Path) -> None:
    first = elsewhere(tmp_path / "first")
    for role in ROLES:
        place = tmp_path / "first" / role
        place.mkdir(parents=True)
        (data_dir / f"{role}.db").rename(place / "iotflow.db")
    target = tmp_path / "backup"
    assert run_backup(first, target) == 0
    names = {path.name for path in target.iterdir()}
    assert names == {"events.db", "registry.db", "telemetry.db", "manifest.json"}
    second = elsewhere(tmp_path / "second")
    for force in (False, True):
        assert run_restore(second, target, force=force) == 0
        tables = {
            role: {
                name
                for (name,) in rows(
                    tmp_path / "second" / role / "iotflow.db", "SELECT name FROM sqlite_master"
                )
            }
            for role in ROLES
        }
        assert "users" in tables["registry"]
        assert "points" in tables["telemetry"]
        assert "events" in tables["events"]
    (aside,) = (tmp_path / "second" / "data").glob("replaced-*")
    was = sorted(path.relative_to(aside).as_posix() for path in aside.rglob("*.db"))
    assert was == [f"{role}/iotflow.db" for role in ROLES]


def test_what_is_beside_a_file_that_is_gone_is_not_taken_for_the_new_ones(
    data_dir: Path, tmp_path: Path
) -> None:
    target = tmp_path / "backup"
    run_backup(settings(data_dir), target)
    registry = data_dir / "registry.db"
    # As a killed process leaves it: a log that was not merged.
    with closing(sqlite3.connect(registry, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("UPDATE users SET email = 'other@example.com'")
        log = registry.with_name("registry.db-wal").read_bytes()
    for path in data_dir.iterdir():
        path.unlink()
    registry.with_name("registry.db-wal").write_bytes(log)
    assert run_restore(settings(data_dir), target, force=False) == 0
    assert rows(registry, "SELECT email FROM users") == [("root@example.com",)]
    (aside,) = data_dir.glob("replaced-*")
    assert (aside / "registry" / "registry.db-wal").read_bytes() == log


def make_old(registry: Path, revision: str) -> None:
    """Take back what later revisions brought."""
    rows(registry, "DROP INDEX ix_job_devices_device_id")
    for name in ("parameters", "state", "report"):
        rows(registry, f"ALTER TABLE jobs DROP COLUMN {name}")
    if revision < "0003":
        for name in ("job_devices", "job_keys", "jobs", "device_config", "group_devices", "groups"):
            rows(registry, f"DROP TABLE {name}")
    rows(registry, "UPDATE alembic_version SET version_num = ?", revision)


@pytest.mark.parametrize("revision", ["0004_tokens", "0002_cache_epoch"])
def test_an_older_schema_is_backed_up_before_the_upgrade(
    data_dir: Path, tmp_path: Path, revision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make_old(data_dir / "registry.db", revision)
    if revision > "0003":
        add_job(data_dir / "registry.db", stage=1, parameters=None)
    target = tmp_path / "backup"
    assert run_backup(settings(data_dir), target) == 0
    manifest = json.loads((target / "manifest.json").read_text())
    assert manifest["files"]["registry"]["revision"] == revision
    capsys.readouterr()
    again = tmp_path / "again"
    assert run_restore(settings(again), target, force=False) == 0
    told = capsys.readouterr().err
    assert "iotflow events replay --from 20" in told
    assert "when it is served" not in told
    assert rows(again / "registry.db", "SELECT username FROM users") == [("root",)]
    if revision > "0003":
        assert rows(again / "registry.db", "SELECT stage, status FROM jobs") == [(0, "pending")]


def test_a_file_that_never_was_a_store_is_refused(data_dir: Path, tmp_path: Path) -> None:
    for statement in ("DELETE FROM alembic_version", "DROP TABLE alembic_version"):
        rows(data_dir / "events.db", statement)
        with pytest.raises(ConfigurationError, match=r"events\.db: .*never migrated") as refused:
            run_backup(settings(data_dir), tmp_path / "backup")
        assert "\n" not in refused.value.message
    (data_dir / "events.db").write_bytes(b"anything" * 1000)
    with pytest.raises(ConfigurationError, match="cannot be copied"):
        run_backup(settings(data_dir), tmp_path / "backup")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_restore_that_fails_leaves_nothing_behind(data_dir: Path, tmp_path: Path) -> None:
    target, place = tmp_path / "backup", tmp_path / "place"
    run_backup(settings(data_dir), target)
    place.mkdir()
    (place / "registry").write_text("no directory can be made here")
    with pytest.raises(ConfigurationError):
        run_restore(elsewhere(place), target, force=False)
    left = [path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()]
    assert sorted(left) == ["data/lock", "registry"]


def add_job(
    registry: Path,
    *,
    kind: str = "device_deletion",
    stage: int,
    age: timedelta = timedelta(0),
    done: bool = False,
    parameters: str | None = "{}",
) -> int:
    """A job as its worker has left it; somebody holds it where it is not done."""
    at = datetime.now(UTC) - age
    stored = at.replace(tzinfo=None).isoformat(sep=" ")
    values: dict[str, Any] = {
        "kind": kind,
        "status": "done" if done else "running",
        "requested_by": 1,
        "subject_id": 7,
        "counts": "{}",
        "stage": stage,
        "after_device_id": 7,
        "attempts": 3,
        "due_at": None if done else stored,
        "created_at": stored,
        "finished_at": stored if done else None,
        "lease_owner": None if done else "somebody",
        "lease_until": None if done else stored,
    }
    if parameters is not None:
        values["parameters"] = parameters
    marks = ", ".join("?" * len(values))
    made = f"INSERT INTO jobs ({', '.join(values)}) VALUES ({marks}) RETURNING id"
    ((job_id,),) = rows(registry, made, *values.values())
    rows(registry, "INSERT INTO job_devices VALUES (?, 7)", job_id)
    return int(job_id)


JOB = (
    "SELECT status, stage, after_device_id, attempts, finished_at IS NULL, lease_owner,"
    " lease_until, (SELECT count(*) FROM job_devices WHERE job_id = id) FROM jobs WHERE id = ?"
)
BEGINS_AGAIN = ("pending", 0, 0, 0, 1, None, None, 1)


def job(path: Path, job_id: int) -> Sequence[Any]:
    (found,) = rows(path, JOB, job_id)
    return tuple(found)


def test_deletions_that_had_begun_are_done_once_more(data_dir: Path, tmp_path: Path) -> None:
    registry, target = data_dir / "registry.db", tmp_path / "backup"
    hours, minutes = timedelta(hours=2), timedelta(minutes=10)
    again = [
        add_job(registry, stage=1),
        add_job(registry, stage=1, age=hours),
        add_job(registry, stage=3, age=minutes, done=True),
        add_job(registry, kind="user_deletion", stage=2, age=minutes),
    ]
    stay = [
        add_job(registry, stage=3, age=hours, done=True),
        add_job(registry, kind="verification", stage=1, age=minutes),
    ]
    as_left = [job(registry, job_id) for job_id in stay]
    began = datetime.now(UTC).replace(tzinfo=None).isoformat(sep=" ")
    run_backup(settings(data_dir), target)
    copy = target / "registry.db"
    assert [job(copy, job_id) for job_id in again] == [BEGINS_AGAIN] * len(again)
    assert [job(copy, job_id) for job_id in stay] == as_left
    due = rows(copy, "SELECT count(*) FROM jobs WHERE due_at >= ?", began)
    assert due == [(len(again) + 1,)], "those and the replay"
    assert BEGINS_AGAIN not in [job(registry, job_id) for job_id in again], "the copy alone"
