"""`iotflow backup`: consistent copies of the embedded stores, made beside whoever serves them.

Each file is copied as it was at one moment: SQLite's online backup reads one snapshot, which
holds up nobody who writes. The files come one after the other, in an order that lets them fit
together: events, then points, then the registry. So every event's points are there, and every
point's device. What happened in between is settled in the copy of the registry: events of the
last points are replayed after a restore, and deletions that had begun are done once more.
"""

import json
import os
import shutil
import sqlite3
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from iotflow import __version__
from iotflow.cli.manifest import FORMAT, SECRET, BackedUp, Manifest, described, write_manifest
from iotflow.cli.terminal import progress, results, say
from iotflow.domain.jobs import DELETIONS, NOBODY, JobKind, JobStatus
from iotflow.domain.times import format_ms, to_ms
from iotflow.errors import ConfigurationError
from iotflow.maintenance.parameters import ReplayParameters, as_json
from iotflow.settings import Role, Settings
from iotflow.stores.sql import sqlite_path

ORDER: tuple[Role, ...] = ("events", "telemetry", "registry")
DELETION_JOBS, REPLAY_JOBS = "0003_groups_config_jobs", "0005_maintenance_jobs"
"""The revisions of the registry that they came with."""

_PAGES_A_STEP = 4_096
_BUSY_S = 10.0
# How long what was submitted may wait for its event, and a deletion for its last pass.
_QUEUED, _DELETING = timedelta(minutes=5), timedelta(minutes=30)
_TOOLS = {
    "postgresql": "pg_dump --format=custom --schema={role}, or your provider's snapshots",
    "cassandra": "nodetool snapshot on every node (or Medusa)",
    "mongodb": "mongodump --oplog, or a snapshot of a secondary",
}


def run_backup(settings: Settings, directory: Path) -> int:
    """Raises ConfigurationError where nothing can be backed up, or there is something already."""
    files: dict[Role, Path] = {
        role: path for role in ORDER if (path := _file_of(settings, role)) is not None
    }
    elsewhere = elsewhere_of(settings)
    _say_elsewhere(elsewhere)
    if not files:
        raise ConfigurationError("No store is embedded: there is nothing for this command to do.")
    if directory.exists():
        raise ConfigurationError(f"{directory} is there already. Choose another name.")
    for role, path in files.items():
        if not path.is_file():
            raise ConfigurationError(f"{path}: the {role} store has no file yet. Serve it once.")
    began = datetime.now(UTC)
    with _appearing_whole(directory) as making:
        copies = _copy_all(files, making)
        ended = datetime.now(UTC)
        if "registry" in copies:
            _settle(making, copies["registry"], began, ended)
            copies["registry"] = _described(making, "registry", files["registry"])
        if secret := _copy_secret(settings, making):
            copies[SECRET] = secret
        times = (format_ms(to_ms(began)), format_ms(to_ms(ended)))
        write_manifest(making, Manifest(FORMAT, __version__, *times, copies, elsewhere))
        _flush(making)
    size = sum(each.bytes for each in copies.values())
    say(results(), f"Backed up {', '.join(copies)} ({size:,} bytes) to {directory}")
    if SECRET in copies:
        say(progress(), f"{directory / SECRET} signs tokens: keep the backup as you keep secrets.")
    return 0


def elsewhere_of(settings: Settings) -> dict[str, str]:
    """What backs up the roles that are on servers."""
    tools = {role: settings.store_url(role).split(":")[0] for role in ORDER}
    return {
        role: _TOOLS[scheme].format(role=role) for role, scheme in tools.items() if scheme in _TOOLS
    }


def _say_elsewhere(elsewhere: dict[str, str]) -> None:
    for role, tool in elsewhere.items():
        say(progress(), f"The {role} store is on a server of its own. Back it up with {tool}.")


def _file_of(settings: Settings, role: Role) -> Path | None:
    url = settings.store_url(role)
    return sqlite_path(url) if url.startswith("sqlite:") else None


@contextmanager
def _appearing_whole(directory: Path) -> Generator[Path]:
    """A directory of mode 0700 that gets its name when it is complete."""
    making = directory.with_name(f".{directory.name}.{os.getpid()}")
    try:
        making.mkdir(mode=0o700)
    except OSError as error:
        reason = f"cannot make a directory there ({error.strerror})"
        raise ConfigurationError(f"{directory}: {reason}") from None
    try:
        yield making
        making.rename(directory)
    except OSError as error:
        raise ConfigurationError(f"{directory}: {error.strerror}") from None
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _copy_all(files: Mapping[Role, Path], making: Path) -> dict[str, BackedUp]:
    copies: dict[str, BackedUp] = {}
    for role, path in files.items():
        say(progress(), f"Copying {role} ({path.stat().st_size:,} bytes) ...")
        try:
            _copy(path, making / _name(role))
        except sqlite3.Error as error:
            raise ConfigurationError(f"{path}: cannot be copied ({error})") from None
        copies[role] = _described(making, role, path)
    return copies


def _name(role: Role) -> str:
    """Of a copy: the files themselves may all have the same name, each in its own directory."""
    return f"{role}.db"


def _copy(source: Path, target: Path) -> None:
    """One snapshot of a file. A read transaction holds it: without, every write of another
    process would begin the copy anew."""
    # Not opened read-only, for which SQLite would need what only a running service has beside it.
    uri = f"{source.absolute().as_uri()}?mode=rw"
    with (
        closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)) as reading,
        closing(sqlite3.connect(target)) as writing,
    ):
        target.chmod(0o600)
        reading.execute("PRAGMA query_only=ON")
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM sqlite_master").fetchone()
        reading.backup(writing, pages=_PAGES_A_STEP, sleep=0)
        # One file, with nothing beside it: it is opened read-only while it is checked.
        writing.execute("PRAGMA journal_mode=DELETE")


def _described(making: Path, role: Role, source: Path) -> BackedUp:
    """A copy of `source`. Raises ConfigurationError where that is no store of IoTFlow's."""
    copy = making / _name(role)
    with closing(sqlite3.connect(copy)) as connection:
        try:
            found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError:  # no such table
            found = None
    if found is None:
        raise ConfigurationError(f"{source}: the {role} store was never migrated. Serve it once.")
    return described(copy, found[0])


def _settle(making: Path, registry: BackedUp, began: datetime, ended: datetime) -> None:
    """In the copy: what the other files, which are a little older, do not have or still have."""
    with closing(sqlite3.connect(making / registry.name)) as connection, connection:
        if keeps(registry, DELETION_JOBS):
            _begin_deletions_again(connection, ended, began - _DELETING)
        if keeps(registry, REPLAY_JOBS):
            _replay(connection, began - _QUEUED, ended)


def keeps(registry: BackedUp | None, since_revision: str) -> bool:
    """Whether a registry's schema, which may be an older one, has what came with a revision."""
    return registry is not None and (registry.revision or "") >= since_revision


def replay_by_hand(began: datetime, ended: datetime) -> str:
    """The command for what a backup's registry cannot ask for by itself."""
    since, until = format_ms(to_ms(began - _QUEUED)), format_ms(to_ms(ended) + 1)
    return f"iotflow events replay --from {since} --to {until}"


def _begin_deletions_again(
    connection: sqlite3.Connection, due_at: datetime, since: datetime
) -> None:
    kinds = [kind.value for kind in DELETIONS]
    connection.execute(
        "UPDATE jobs SET stage = 0, after_device_id = 0, attempts = 0, status = ?, due_at = ?,"
        " finished_at = NULL, lease_owner = NULL, lease_until = NULL"
        " WHERE kind IN (SELECT value FROM json_each(?))"
        " AND (created_at >= ? OR finished_at IS NULL)",
        (JobStatus.PENDING.value, _stored(due_at), json.dumps(kinds), _stored(since)),
    )


def _replay(connection: sqlite3.Connection, since: datetime, until: datetime) -> None:
    span = ReplayParameters(to_ms(since) * 1000, (to_ms(until) + 1) * 1000, automatic=True)
    at = _stored(until)
    connection.execute(
        "INSERT INTO jobs (kind, status, requested_by, subject_id, counts, stage,"
        " after_device_id, attempts, due_at, created_at, parameters)"
        " VALUES (?, ?, ?, 0, '{}', 0, 0, 0, ?, ?, ?)",
        (
            JobKind.EVENT_REPLAY.value, JobStatus.PENDING.value, NOBODY, at, at,
            json.dumps(as_json(span)),
        ),
    )  # fmt: skip


def _stored(at: datetime) -> str:
    """A time as the registry's file has it."""
    return at.replace(tzinfo=None).isoformat(sep=" ")


def _copy_secret(settings: Settings, making: Path) -> BackedUp | None:
    source, target = settings.data_dir / SECRET, making / SECRET
    if not source.is_file():
        return None
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(source.read_bytes())
    return described(target)


def _flush(directory: Path) -> None:
    """Have everything on the disk before the backup gets its name."""
    for path in directory.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
