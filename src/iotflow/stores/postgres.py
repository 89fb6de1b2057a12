"""How stores connect to PostgreSQL, and what its errors mean.

The URL is libpq's, as asyncpg reads it: several hosts (`h1:5432,h2:5432`) with
`target_session_attrs=read-write` for a primary and its standby, `sslmode`, `sslrootcert` and so
on; any other option is a setting of the session (`application_name`, `statement_timeout` …).
One option is our own: `pgbouncer=true`, for a pgbouncer that pools transactions.
"""

import re
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode

from iotflow.errors import ConfigurationError
from iotflow.stores.urls import split_url

CONNECT_S = 3.0
_DEFAULT_PORT = 5432
_PLACE = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:@]+)(?::(\d{1,5}))?")
_STATEMENT_TIMEOUT_MS = 30_000
_IDLE_IN_TRANSACTION_MS = 30_000

# The server's judgement of values: data exceptions and broken constraints. Whatever else it
# says (no privilege, no table, read only, out of memory …) no caller can help.
_CALLERS_FAULT = ("22", "23")


class Target(NamedTuple):
    """A URL without our own option and without the hosts, and what those said."""

    dsn: str
    pgbouncer: bool
    hosts: list[str]
    ports: list[int]
    """Of each host."""


def target_of(url: str) -> Target:
    """Raises ConfigurationError for hosts or an option that cannot be read."""
    parts = split_url(url)
    options = parse_qsl(parts.query, keep_blank_values=True)
    pgbouncer = [value for name, value in options if name == "pgbouncer"][-1:] or ["false"]
    if pgbouncer[0] not in ("true", "false"):
        raise ConfigurationError("The URL's pgbouncer is true or false.")
    kept = urlencode([option for option in options if option[0] != "pgbouncer"])
    user, at, places = parts.netloc.rpartition("@")
    dsn = f"postgresql://{user}{at}{parts.path}{'?' if kept else ''}{kept}"
    return Target(dsn, pgbouncer[0] == "true", *_hosts(places))


def _hosts(places: str) -> tuple[list[str], list[int]]:
    """The driver would ask the standard library, which knows no such list (stores/urls.py)."""
    found = [_PLACE.fullmatch(place) for place in places.split(",")] if places else []
    read = [match for match in found if match is not None]
    if len(read) < len(found):
        raise ConfigurationError("The URL's hosts are written h1:5432,h2.")
    hosts = [unquote(match[1].strip("[]")) for match in read]
    return hosts, [int(match[2] or _DEFAULT_PORT) for match in read]


def connect_arguments(url: str, *, patient: bool = False) -> dict[str, Any]:
    """Arguments of asyncpg.connect, and of its pool.

    `patient` is for migrations: no limit on a statement.
    """
    target = target_of(url)
    arguments: dict[str, Any] = {"dsn": target.dsn, "timeout": CONNECT_S}
    if target.hosts:
        arguments |= {"host": target.hosts, "port": target.ports}
    if target.pgbouncer:
        # A prepared statement may meet another server connection next time, and settings in the
        # start of a session are refused: set timeouts for the role or the database instead.
        return arguments | {"statement_cache_size": 0}
    settings = {
        "application_name": "iotflow",
        # To compile a statement or to start workers for it costs more than the short ones gain,
        # and the long ones are not to take the processors from those who write.
        "jit": "off",
        "max_parallel_workers_per_gather": "0",
        "idle_in_transaction_session_timeout": str(_IDLE_IN_TRANSACTION_MS),
        "statement_timeout": str(0 if patient else _STATEMENT_TIMEOUT_MS),
    }
    given = dict(parse_qsl(split_url(target.dsn).query, keep_blank_values=True))
    return arguments | {"server_settings": settings | {k: given[k] for k in settings if k in given}}


def is_callers_fault(error: BaseException) -> bool:
    """Whether an error of asyncpg, or of SQLAlchemy over it, is about the values it was given."""
    at: BaseException | None = error
    while at is not None:
        sqlstate = getattr(at, "sqlstate", None)
        if isinstance(sqlstate, str):
            return sqlstate.startswith(_CALLERS_FAULT)
        if isinstance(at, ValueError | TypeError | OverflowError):
            return True
        at = getattr(at, "orig", None) or at.__cause__
    return False
