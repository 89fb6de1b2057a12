"""`iotflow restore`: checks a backup and puts it in the place of the embedded stores."""

import os
import shutil
import sqlite3
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from iotflow.cli.backup_run import ORDER, REPLAY_JOBS, elsewhere_of, keeps, replay_by_hand
from iotflow.cli.manifest import SECRET, BackedUp, Manifest, read_manifest, sha256_of
from iotflow.cli.terminal import progress, results, say
from iotflow.errors import ConfigurationError
from iotflow.settings import Role, Settings
from iotflow.stores.migrations import head_revision
from iotflow.stores.sql import sqlite_path

# What SQLite keeps beside a file belongs to it: with another file it would destroy that.
_BESIDE = ("-wal", "-shm", "-journal")
_NEW = ".restoring"


def run_restore(settings: Settings, directory: Path, *, force: bool) -> int:
    """Raises ConfigurationError where it must not, or cannot be done; then nothing was changed."""
    manifest = read_manifest(directory)
    targets = _targets(settings, manifest)
    for role, tool in elsewhere_of(settings).items():
        say(progress(), f"The {role} store is on a server of its own; this restores none of it")
        say(progress(), f"(made with {tool}).")
    for name, file in manifest.files.items():
        _check(directory / file.name, name, file)
    with _locked(settings):
        there = [str(path) for path in targets.values() if path.exists()]
        if there and not force:
            raise ConfigurationError(f"{', '.join(there)}: there already. Replace with --force.")
        with _beside(targets) as copies:
            for name, copy in copies.items():
                _copy(directory / manifest.files[name].name, copy)
            _set_aside(settings.data_dir, targets)
            for name, target in targets.items():
                copies[name].replace(target)
            _flush({target.parent for target in targets.values()})
    say(results(), f"Restored {', '.join(targets)} as of {manifest.ended_at}")
    say(progress(), _about_events(manifest))
    return 0


def _about_events(manifest: Manifest) -> str:
    if keeps(manifest.files.get("registry"), REPLAY_JOBS):
        return "The events of the last points before it are replayed when it is served."
    began, ended = map(datetime.fromisoformat, (manifest.began_at, manifest.ended_at))
    return f"Replay the events of the last points before it: {replay_by_hand(began, ended)}"


def _targets(settings: Settings, manifest: Manifest) -> dict[str, Path]:
    """Where each file goes."""
    targets: dict[str, Path] = {}
    for name in manifest.files:
        if name == SECRET:
            targets[name] = settings.data_dir / SECRET
            continue
        role = _role(name)
        url = settings.store_url(role)
        if not url.startswith("sqlite:"):
            raise ConfigurationError(
                f"The backup has the {role} store, which is on a server by these settings. "
                f"Leave out IOTFLOW_{role.upper()}__URL."
            )
        targets[name] = sqlite_path(url)
    return targets


def _role(name: str) -> Role:
    for role in ORDER:
        if role == name:
            return role
    raise ConfigurationError(f"The backup has a store {name!r} that this version does not know.")


def _check(path: Path, name: str, file: BackedUp) -> None:
    """Raises ConfigurationError where a file is not as the manifest has it."""
    if Path(file.name).name != file.name or not path.is_file():
        raise ConfigurationError(f"{path}: missing from the backup.")
    if path.stat().st_size != file.bytes or sha256_of(path) != file.sha256:
        raise ConfigurationError(f"{path}: changed since the backup was made (checksum).")
    if name == SECRET:
        return
    if file.revision is None or file.revision > head_revision(name):
        raise ConfigurationError(f"{path}: a newer IoTFlow has made it; restore with that.")
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if said != "ok":
        raise ConfigurationError(f"{path}: damaged ({said}).")


@contextmanager
def _locked(settings: Settings) -> Generator[None]:
    """No process serves the directory while this goes on, and none begins to."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(settings.data_dir / "lock", timeout=0):
            yield
    except Timeout:
        raise ConfigurationError(
            f"IOTFLOW_DATA_DIR: a process serves {settings.data_dir.resolve()}. Stop it first."
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"IOTFLOW_DATA_DIR: cannot write to {settings.data_dir} ({error.strerror})"
        ) from None


@contextmanager
def _beside(targets: Mapping[str, Path]) -> Generator[dict[str, Path]]:
    """Where each file is copied to before it gets its name; nothing stays there."""
    copies = {name: target.with_name(target.name + _NEW) for name, target in targets.items()}
    try:
        yield copies
    finally:
        for copy in copies.values():
            copy.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as writing, source.open("rb") as reading:
        shutil.copyfileobj(reading, writing)
        writing.flush()
        os.fsync(writing.fileno())


def _set_aside(data_dir: Path, targets: Mapping[str, Path]) -> None:
    """Move what is replaced, with what SQLite keeps beside it, into a directory of its own.

    What is beside a file that is gone is moved, too: SQLite would take it for the new file's.
    """
    there = {
        name: [each for each in (path, *_belonging(path)) if each.exists()]
        for name, path in targets.items()
    }
    if not any(there.values()):
        return
    aside = data_dir / f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
    aside.mkdir(mode=0o700)
    for name, paths in there.items():
        for path in paths:
            (aside / name).mkdir(mode=0o700, exist_ok=True)
            shutil.move(path, aside / name / path.name)
    say(progress(), f"What was there is in {aside}")


def _belonging(path: Path) -> list[Path]:
    return [path.with_name(path.name + end) for end in _BESIDE]


def _flush(directories: set[Path]) -> None:
    if os.name == "nt":
        return
    for directory in directories:
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
