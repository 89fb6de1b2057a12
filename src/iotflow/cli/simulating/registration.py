"""The fleet's user and devices on the server: found, or made."""

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec

from iotflow.cli.client import (
    NOT_IOTFLOW,
    ApiClient,
    Credentials,
    RefusedError,
    ServerUnreachableError,
    document_of,
    require_success,
)
from iotflow.cli.retrying import Retrying
from iotflow.cli.simulating.state import Account, KnownDevice, SimulatorState
from iotflow.errors import ConfigurationError

_SAVE_EVERY = 50
_PREFIX = "sim-"
_OTHERWISE = "Give --password, or another --username."
Progressed = Callable[[int, int], None]
"""Told how many devices are ready, and of how many."""


class _Key(msgspec.Struct):
    prefix: str


class _Device(msgspec.Struct):
    id: int
    name: str
    key: _Key | None = None


class _Devices(msgspec.Struct):
    items: list[_Device]
    next_cursor: str | None = None


class _Registered(msgspec.Struct):
    device: _Device
    api_key: str


class _NewKey(msgspec.Struct):
    api_key: str


def device_name(index: int) -> str:
    """sim-0001 and on."""
    return f"{_PREFIX}{index + 1:04d}"


class Registration:
    """Makes ready what is not there yet, and keeps the keys in the state."""

    def __init__(self, url: str, username: str, state: SimulatorState, retrying: Retrying) -> None:
        self._url = url
        self._username = username
        self._state = state
        self._retrying = retrying

    def keys(self, count: int, password: str | None, progressed: Progressed) -> list[str]:
        """The keys of `count` devices, in their order.

        Raises:
            RefusedError: the account is there and the password is wrong.
            ConfigurationError: the account is there and no password is known.
            ServerUnreachableError: the server did not answer.
        """
        account = self._account(password)
        credentials = Credentials(username=self._username, password=account.password)
        with ApiClient(self._url, credentials) as client:
            there = {device.name: device for device in self._listed(client)}
            try:
                return list(self._ready(client, account, there, count, progressed))
            finally:
                self._state.save()

    def _account(self, password: str | None) -> Account:
        """The account, which the server knows from here on."""
        known = self._state.account(self._url, self._username)
        given = password or (known.password if known else None)
        if given is not None:
            account = Account(given, known.devices if known else {})
            if not self._signs_in(given) and not self._is_made(given):
                raise RefusedError(401, f"Wrong password for '{self._username}'. {_OTHERWISE}")
            self._state.put(self._url, self._username, account)
            return account
        account = Account(secrets.token_urlsafe(24))
        # Kept before it is used: a password that only the server knows would be lost.
        self._state.put(self._url, self._username, account)
        self._state.save()
        if not self._is_made(account.password):
            self._state.drop(self._url, self._username)
            self._state.save()
            raise ConfigurationError(
                f"The account '{self._username}' is there and its password is not known. "
                f"{_OTHERWISE}"
            )
        return account

    def _signs_in(self, password: str) -> bool:
        with ApiClient(self._url, Credentials(username=self._username, password=password)) as user:
            try:
                require_success(self._retrying.call(lambda: user.send("GET", "/users/me")))
            except RefusedError as error:
                if error.status == 401:
                    return False
                raise
        return True

    def _is_made(self, password: str) -> bool:
        """Whether the account could be registered; False where its name is taken."""
        body = {"username": self._username, "password": password}
        body["email"] = f"{self._username}@example.com"
        with ApiClient(self._url, None) as nobody:
            answer = self._retrying.call(lambda: nobody.send("POST", "/auth/register", json=body))
        if answer.status_code == 409:
            return False
        require_success(answer)
        return True

    def _listed(self, client: ApiClient) -> Iterator[_Device]:
        params: dict[str, str | int] = {"q": _PREFIX, "limit": 1000}
        while True:
            page = self._call(client, _Devices, "GET", "/devices", params=params)
            yield from page.items
            if page.next_cursor is None:
                return
            params["cursor"] = page.next_cursor

    def _ready(
        self,
        client: ApiClient,
        account: Account,
        there: dict[str, _Device],
        count: int,
        progressed: Progressed,
    ) -> Iterator[str]:
        for index in range(count):
            name = device_name(index)
            known, found = account.devices.get(name), there.get(name)
            if known is None or found is None or not _opens(known, found):
                known = self._renewed(client, found) if found else self._registered(client, name)
                account.devices[name] = known
                if index % _SAVE_EVERY == 0:
                    self._state.save()
            progressed(index + 1, count)
            yield known.api_key

    def _registered(self, client: ApiClient, name: str) -> KnownDevice:
        body = {"name": name, "device_type": "simulated"}
        made = self._call(client, _Registered, "POST", "/devices/register", json=body)
        return KnownDevice(made.device.id, name, made.api_key)

    def _renewed(self, client: ApiClient, device: _Device) -> KnownDevice:
        """A new key for a device whose key is not in the state."""
        path = f"/devices/{device.id}/keys"
        made = self._call(client, _NewKey, "POST", path, json={"overlap": 0})
        return KnownDevice(device.id, device.name, made.api_key)

    def _call(
        self, client: ApiClient, kind: type[Any], method: str, path: str, **options: Any
    ) -> Any:
        def send() -> httpx.Response:
            return client.send(method, path, **options)

        answer = require_success(self._retrying.call(send))
        try:
            return msgspec.convert(document_of(answer), kind)
        except msgspec.ValidationError:
            raise ServerUnreachableError(NOT_IOTFLOW) from None


def _opens(known: KnownDevice, found: _Device) -> bool:
    """Whether the key that is kept is the device's, as far as its prefix tells."""
    return (
        known.id == found.id
        and found.key is not None
        and known.api_key.startswith(found.key.prefix)
    )
