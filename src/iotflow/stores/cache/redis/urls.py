"""What a cache URL says."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from iotflow.errors import ConfigurationError
from iotflow.stores.urls import split_url

Kind = Literal["single", "sentinel", "cluster"]
Address = tuple[str, int]

_KINDS: dict[str, Kind] = {
    "redis": "single",
    "rediss": "single",
    "redis+sentinel": "sentinel",
    "rediss+sentinel": "sentinel",
    "redis+cluster": "cluster",
    "rediss+cluster": "cluster",
}
_PATHS = {"tls_ca": "ssl_ca_certs", "tls_cert": "ssl_certfile", "tls_key": "ssl_keyfile"}
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """`redis://[user:password@]host[:port][/db]`, `redis+sentinel://host,…/service` or
    `redis+cluster://host,…`; `rediss` instead of `redis`, or `tls=true`, for TLS.

    Options: `tls_ca`, `tls_cert` and `tls_key` (files), `tls_check_hostname=false`; `db` where
    the path is the service's name; `sentinel_username` and `sentinel_password` for Sentinels.
    """

    kind: Kind
    addresses: tuple[Address, ...]
    service: str = ""
    tls: bool = False
    options: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)
    """What every connection to a Redis server is made with."""
    sentinel_options: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)


def parse_url(url: str) -> RedisUrl:
    """Raises ConfigurationError, which never quotes the URL: it may hold a password."""
    scheme, _, rest = url.partition("://")
    kind = _KINDS.get(scheme)
    if kind is None:
        raise ConfigurationError(f"A cache URL begins with one of {', '.join(_KINDS)}.")
    split = split_url(f"redis://{rest}")
    user, _, hosts = split.netloc.rpartition("@")
    given = _options(split.query)
    tls = scheme.startswith("rediss") or _flag(given.pop("tls", "false"), "tls")
    path = unquote(split.path.strip("/"))
    if kind == "sentinel" and not path:
        raise ConfigurationError("A redis+sentinel:// URL ends in the service's name.")
    database = given.pop("db", "" if kind == "sentinel" else path)
    options = {**_credentials(user), **_database(database, kind)}
    sentinel = _sentinel_options(given) if kind == "sentinel" else {}
    if tls:
        secured = _tls_options(given)
        options |= secured
        sentinel = sentinel | secured | {"ssl": True} if kind == "sentinel" else {}
    if given:
        raise ConfigurationError(f"A cache URL has no option {sorted(given)[0]!r}.")
    addresses = _addresses(hosts, 26379 if kind == "sentinel" else 6379)
    if kind == "single" and len(addresses) > 1:
        raise ConfigurationError("A redis:// URL names one host; redis+cluster:// names several.")
    return RedisUrl(kind, addresses, path if kind == "sentinel" else "", tls, options, sentinel)


def _options(query: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}


def _flag(text: str, name: str) -> bool:
    flag = _FLAGS.get(text.lower())
    if flag is None:
        raise ConfigurationError(f"The cache URL's {name} is true or false.")
    return flag


def _credentials(user: str) -> dict[str, Any]:
    name, _, password = user.partition(":")
    found = {"username": unquote(name), "password": unquote(password)}
    return {key: value for key, value in found.items() if value}


def _database(text: str, kind: Kind) -> dict[str, Any]:
    if not text:
        return {}
    if not text.isdecimal():
        raise ConfigurationError("The cache URL's database is a number.")
    if kind == "cluster" and int(text):
        raise ConfigurationError("A Redis Cluster has database 0 alone.")
    return {"db": int(text)}


def _sentinel_options(given: dict[str, str]) -> dict[str, Any]:
    names = [name for name in ("username", "password") if f"sentinel_{name}" in given]
    return {name: given.pop(f"sentinel_{name}") for name in names}


def _tls_options(given: dict[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, option in _PATHS.items():
        if name in given:
            path = given.pop(name)
            if not Path(path).is_file():
                raise ConfigurationError(f"The cache URL's {name} is no file.")
            options[option] = path
    checks = _flag(given.pop("tls_check_hostname", "true"), "tls_check_hostname")
    return options | {"ssl_check_hostname": checks}


def _addresses(hosts: str, default_port: int) -> tuple[Address, ...]:
    addresses = tuple(_address(host, default_port) for host in hosts.split(",") if host)
    if not addresses:
        raise ConfigurationError("A cache URL names a host.")
    return addresses


def _address(text: str, default_port: int) -> Address:
    try:
        split = urlsplit(f"//{text}")
        if split.hostname:
            return split.hostname, split.port or default_port
    except ValueError:
        pass
    raise ConfigurationError("A cache URL's hosts are written host or host:port.")
