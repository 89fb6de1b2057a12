"""How far an import has come, in a file beside the CSV, so that it can be gone on with."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import msgspec

from iotflow.cli.client import os_reason
from iotflow.cli.importing.options import ImportOptions
from iotflow.cli.importing.rejections import Reason
from iotflow.domain.secrets import digest_of
from iotflow.errors import ConfigurationError

_CHUNK = 1024 * 1024


class Identity(msgspec.Struct, frozen=True):
    """What must be the same for a state to count: the file's content, how it is read, and where
    it goes. The key's digest is in it, so that a server set up anew is another one."""

    file_sha256: str
    options_sha256: str
    server: str
    device_id: int
    key_sha256: str


class State(msgspec.Struct):
    """What is acknowledged: `batches` from the beginning, `report_bytes` of rejections."""

    identity: Identity
    batches: int = 0
    accepted: int = 0
    report_bytes: int = 0
    reasons: list[Reason] = msgspec.field(default_factory=list[Reason])


class StateFile:
    """A state on disk, replaced as a whole, so that no crash leaves half of one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spool = path.with_name(f"{path.name}.rejected.csv")

    def load(self) -> State | None:
        """The state that is there; None for none, and for one that cannot be read.

        Raises:
            ConfigurationError: the file is there and something else than a state.
        """
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed("read", error) from None
        try:
            return msgspec.json.decode(raw, type=State)
        except msgspec.DecodeError:
            raise ConfigurationError(
                f"{self.path} is no state of an import. Remove it, or give --state."
            ) from None

    def save(self, state: State) -> None:
        """Raises ConfigurationError where it cannot be written."""
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            with fresh.open("wb") as file:
                file.write(msgspec.json.encode(state))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError as error:
            with suppress(OSError):
                fresh.unlink()
            raise self._failed("written", error) from None

    def remove(self) -> None:
        """Forget it: everything is done."""
        for path in (self.path, self.spool):
            with suppress(OSError):
                path.unlink()

    def _failed(self, what: str, error: OSError) -> ConfigurationError:
        return ConfigurationError(
            f"{self.path} cannot be {what} ({os_reason(error)}). Give --state for another place."
        )


def identity_of(options: ImportOptions, server: str, device_id: int, api_key: str) -> Identity:
    """Reads the whole file once.

    Raises:
        ConfigurationError: it cannot be read.
    """
    reading = msgspec.json.encode(options.reading(), order="sorted")
    return Identity(
        _sha256(options.file),
        hashlib.sha256(reading).hexdigest(),
        server,
        device_id,
        digest_of(api_key),
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({os_reason(error)}).") from None
    return digest.hexdigest()
