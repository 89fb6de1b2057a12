"""What a backup holds, as its manifest says."""

import hashlib
from pathlib import Path

import msgspec

from iotflow.errors import ConfigurationError

MANIFEST = "manifest.json"
SECRET = "secret_key"
FORMAT = 1
_CHUNK_BYTES = 1024 * 1024


class BackedUp(msgspec.Struct, frozen=True):
    """A file. `revision` is that of its schema, None for the secret."""

    name: str
    bytes: int
    sha256: str
    revision: str | None = None


class Manifest(msgspec.Struct, frozen=True):
    """`version` is the program's; `elsewhere` names roles that are on servers of their own.

    Files are listed in the order in which they were copied.
    """

    format: int
    version: str
    began_at: str
    ended_at: str
    files: dict[str, BackedUp]
    elsewhere: dict[str, str]


def write_manifest(directory: Path, manifest: Manifest) -> None:
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (directory / MANIFEST).write_bytes(encoded + b"\n")


def read_manifest(directory: Path) -> Manifest:
    """Raises ConfigurationError where it is not there, or of another format."""
    try:
        manifest = msgspec.json.decode((directory / MANIFEST).read_bytes(), type=Manifest)
    except OSError:
        raise ConfigurationError(f"{directory}: this is no backup: no {MANIFEST}.") from None
    except msgspec.DecodeError:
        raise ConfigurationError(f"{directory}: its {MANIFEST} cannot be read.") from None
    if manifest.format != FORMAT:
        raise ConfigurationError(f"{directory}: a newer IoTFlow has made it; restore with that.")
    return manifest


def described(path: Path, revision: str | None = None) -> BackedUp:
    """A file as it is now."""
    return BackedUp(path.name, path.stat().st_size, sha256_of(path), revision)


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
