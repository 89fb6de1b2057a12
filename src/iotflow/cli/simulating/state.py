"""The accounts and the devices of simulations, with their keys: a file of mode 0600."""

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from iotflow.cli.client import os_reason
from iotflow.errors import ConfigurationError


class KnownDevice(msgspec.Struct):
    id: int
    name: str
    api_key: str


class Account(msgspec.Struct):
    """A user of one server, and its devices by name."""

    password: str
    devices: dict[str, KnownDevice] = msgspec.field(default_factory=dict[str, KnownDevice])


class _Document(msgspec.Struct):
    accounts: dict[str, Account] = msgspec.field(default_factory=dict[str, Account])


class SimulatorState:
    """One file for any number of servers and users."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._document = self._load()

    def _load(self) -> _Document:
        try:
            raw = self._path.read_bytes()
            return msgspec.json.decode(raw, type=_Document)
        except FileNotFoundError:
            return _Document()
        except OSError as error:
            raise self._failed(f"cannot be read ({os_reason(error)})") from None
        except msgspec.DecodeError:
            raise self._failed("is no state of a simulation") from None

    def account(self, url: str, username: str) -> Account | None:
        return self._document.accounts.get(_name(url, username))

    def put(self, url: str, username: str, account: Account) -> None:
        self._document.accounts[_name(url, username)] = account

    def drop(self, url: str, username: str) -> None:
        self._document.accounts.pop(_name(url, username), None)

    def save(self) -> None:
        """Replace the file as a whole; nobody else may read it.

        Raises:
            ConfigurationError: it cannot be written.
        """
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(self._document), indent=1))
            fresh.replace(self._path)
        except OSError as error:
            with suppress(OSError):
                fresh.unlink()
            raise self._failed(f"cannot be written ({os_reason(error)})") from None

    def _failed(self, what: str) -> ConfigurationError:
        return ConfigurationError(f"--state: {self._path} {what}. Give another place.")


def _name(url: str, username: str) -> str:
    return f"{username} at {url}"
