"""The systems that are compared: which stores each has, and how its servers start."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from iotflow.cli.bench.fleet import HISTORY_DEVICES, BenchDevice, Fleet, prepare
from iotflow.cli.bench.naive_app import SCHEMA_VARIABLE, URL_VARIABLE
from iotflow.cli.bench.naive_tables import naive_tables
from iotflow.cli.bench.plan import ValidationPlan
from iotflow.cli.bench.scenarios import ECHO, PLAIN, UNCACHED, Row
from iotflow.cli.bench.servers import iotflow_server, uvicorn_server
from iotflow.cli.bench.store_processes import store_processes
from iotflow.errors import ConfigurationError
from iotflow.settings import Role, Settings

EMBEDDED, CONFIGURED, POSTGRES, NAIVE = "embedded", "configured", "postgres", "naive"
SYSTEMS = (EMBEDDED, CONFIGURED, POSTGRES, NAIVE)
YARDSTICK = "yardstick"
"""The system of the rows that all systems are measured against."""

_ROLES: tuple[Role, ...] = ("registry", "telemetry", "cache", "events")
_NO_CACHE = {"IOTFLOW_CACHE__URL": "none://"}


@dataclass(frozen=True, slots=True)
class System:
    """`settings` come on top of the caller's where it is `configured`; `urls` are its stores'."""

    name: str
    settings: Mapping[str, str]
    urls: tuple[str, ...]

    @property
    def configured(self) -> bool:
        return self.name != EMBEDDED

    @property
    def is_networked(self) -> bool:
        """Whether stores are servers of their own, which may have to warm up."""
        return any(not url.startswith(("sqlite:", "memory:", "none:")) for url in self.urls)

    def has(self, row: Row) -> bool:
        """Whether a row says something of this system."""
        if self.name == NAIVE:
            return row.naive
        return not row.is_yardstick and not (self.name == POSTGRES and row.server == UNCACHED)

    def store_pids(self) -> dict[str, set[int]]:
        """Its stores' processes on this machine, by the kind of store."""
        return store_processes(self.urls)


def system(name: str) -> System:
    """One of SYSTEMS.

    Raises:
        ConfigurationError: a setting cannot be read, or names no PostgreSQL where it must.
    """
    if name == EMBEDDED:
        return System(name, {}, ())
    settings = Settings.load()
    if name == CONFIGURED:
        return System(name, {}, tuple(settings.store_url(role) for role in _ROLES))
    url = settings.store_url("registry")
    if not url.startswith("postgresql:"):
        raise ConfigurationError(
            f"--systems: '{name}' needs a postgresql:// URL in IOTFLOW_REGISTRY__URL"
        )
    stores = {f"IOTFLOW_{role}__URL": url for role in ("REGISTRY", "TELEMETRY", "EVENTS")}
    return System(name, {**stores, **_NO_CACHE}, (url,))


class Launcher:
    """Starts servers with their devices; all end with the stack."""

    def __init__(
        self,
        scratch: Path,
        stack: contextlib.ExitStack,
        devices: int,
        histories: int = HISTORY_DEVICES,
    ) -> None:
        self._scratch = scratch
        self._stack = stack
        self._devices = devices
        self._histories = histories

    def yardstick(self, server: str) -> Fleet:
        """ECHO or PLAIN."""
        app, flags = {
            ECHO: (f"{__package__}.echo_app:app", ()),
            PLAIN: (f"{__package__}.plain_app:create_app", ("--factory",)),
        }[server]
        return Fleet(self._stack.enter_context(uvicorn_server(server, app, self._scratch, *flags)))

    def start(self, of: System, server: str) -> Fleet:
        """A system's server, filled.

        Raises:
            BenchError: it did not start, or refused the filling.
        """
        if of.name == NAIVE:
            return self._naive(of.urls[0])
        settings = {**of.settings, **(_NO_CACHE if server == UNCACHED else {})}
        running = iotflow_server(
            f"{of.name}-{server}", self._scratch, settings, configured=of.configured
        )
        return prepare(self._stack.enter_context(running), self._devices, self._histories)

    def _naive(self, url: str) -> Fleet:
        tables = self._stack.enter_context(naive_tables(url, self._devices, self._histories))
        app = f"{__package__}.naive_app:create_app"
        variables = {URL_VARIABLE: url, SCHEMA_VARIABLE: tables.schema}
        running = uvicorn_server(
            NAIVE, app, self._scratch, "--factory", ready="/openapi.json", **variables
        )
        devices = [BenchDevice(*each) for each in tables.devices]
        server = self._stack.enter_context(running)
        return Fleet(server, devices[: self._devices], devices[self._devices :])


def validation_plan(fleet: Fleet, *, tasks: int, seconds: float, cold: bool) -> ValidationPlan:
    """Key validation on the stores of a fleet's server."""
    environment = fleet.server.environment
    return ValidationPlan(
        keys=[device.key for device in fleet.writers],
        tasks=tasks,
        seconds=seconds,
        cold=cold,
        dsn=environment.get(URL_VARIABLE, ""),
        schema=environment.get(SCHEMA_VARIABLE, ""),
    )
