"""What a `cassandra://` URL says."""

import re
from dataclasses import dataclass
from pathlib import Path
from ssl import get_default_verify_paths
from urllib.parse import parse_qsl, unquote

from iotflow.errors import ConfigurationError
from iotflow.stores.urls import split_url

_DEFAULT_PORT = 9042
_MAX_TTL_S = 20 * 365 * 24 * 3600  # Cassandra takes no more
_SPARE_TTL_S = 2 * 24 * 3600
_KEYSPACE = re.compile(r"[a-z][a-z0-9_]{0,47}")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?")
_DATACENTER = re.compile(r"[A-Za-z0-9._-]+")
_PARAMETERS = frozenset({"local_dc", "replication", "tls", "ttl_s"})


@dataclass(frozen=True, slots=True)
class Address:
    """Where a keyspace is and how it is kept.

    `replication` maps a data centre to its number of copies; the name '' stands for the local
    one. `tls_roots` is a PEM text, '' where certificates are not checked, None without TLS.
    """

    hosts: tuple[str, ...]
    port: int
    keyspace: str
    user: str | None
    password: str | None
    local_dc: str | None
    replication: tuple[tuple[str, int], ...]
    tls_roots: str | None
    ttl_s: int

    @property
    def index_ttl_s(self) -> int:
        """How long a day stays in the index: longer than any point that is written into it."""
        return min(self.ttl_s + _SPARE_TTL_S, _MAX_TTL_S) if self.ttl_s else 0


def parse_address(url: str) -> Address:
    """Read `cassandra://user:password@h1:9042,h2/keyspace?local_dc=&replication=&tls=&ttl_s=`.

    `replication` is a number, or one for each data centre (`dc1:3,dc2:2`). `tls` is `true`
    (the system's root certificates), a file of root certificates, or `insecure` (none is
    checked). The chain is checked, the name in a certificate is not. `ttl_s` is how long points
    are kept, 0 for ever.

    Raises:
        ConfigurationError: naming what is wrong, without the password.
    """
    parts = split_url(url)
    if parts.scheme != "cassandra":
        raise _wrong("begins with cassandra://")
    credentials, _, places = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    hosts, port = _hosts(places)
    keyspace = parts.path.removeprefix("/")
    if not _KEYSPACE.fullmatch(keyspace):
        raise _wrong("names a keyspace of up to 48 lower-case letters, digits and underscores")
    parameters = _parameters(parts.query)
    local_dc = parameters.get("local_dc")
    if local_dc is not None and not _DATACENTER.fullmatch(local_dc):
        raise _wrong("has a data centre's name as local_dc")
    return Address(
        hosts=hosts,
        port=port,
        keyspace=keyspace,
        user=unquote(user) or None,
        password=unquote(password) if user else None,
        local_dc=local_dc,
        replication=_replication(parameters.get("replication", "3")),
        tls_roots=_tls_roots(parameters.get("tls", "false")),
        ttl_s=_ttl_s(parameters.get("ttl_s", "0")),
    )


def _hosts(places: str) -> tuple[tuple[str, ...], int]:
    found = [_HOST.fullmatch(place) for place in places.split(",")]
    hosts = tuple(match[1].strip("[]") for match in found if match is not None)
    if len(hosts) < len(found):
        raise _wrong("has hosts as h1:9042,h2,h3")
    # The driver knows one port for all nodes. A port that one host names is every host's.
    ports = {int(match[2]) for match in found if match is not None and match[2]} or {_DEFAULT_PORT}
    port = ports.pop()
    if ports or not 0 < port < 65_536:
        raise _wrong("has one port from 1 to 65535 for all hosts")
    return hosts, port


def _parameters(query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    parameters = dict(pairs)
    if len(parameters) < len(pairs):
        raise _wrong("has each parameter once")
    if not parameters.keys() <= _PARAMETERS:
        raise _wrong(f"knows the parameters {', '.join(sorted(_PARAMETERS))}")
    return parameters


def _replication(text: str) -> tuple[tuple[str, int], ...]:
    found: dict[str, int] = {}
    for each in text.split(","):
        name, colon, copies = each.rpartition(":")
        if bool(colon) != bool(_DATACENTER.fullmatch(name)) or not re.fullmatch(r"\d{1,2}", copies):
            raise _wrong("has replication=3, or replication=dc1:3,dc2:3")
        found[name] = int(copies)
    if min(found.values()) < 1 or ("" in found and len(found) > 1):
        raise _wrong("has replication=3, or replication=dc1:3,dc2:3, each at least 1")
    return tuple(found.items())


def _tls_roots(text: str) -> str | None:
    if text == "false":
        return None
    if text == "insecure":
        return ""
    path = get_default_verify_paths().cafile if text == "true" else text
    try:
        return Path(path or "").read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise _wrong("has as tls true, false, insecure or a readable file of roots") from None


def _ttl_s(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text) or int(text) > _MAX_TTL_S:
        raise _wrong(f"has as ttl_s a number of seconds up to {_MAX_TTL_S}")
    return int(text)


def _wrong(what_is_right: str) -> ConfigurationError:
    return ConfigurationError(f"The URL of a Cassandra store {what_is_right}.")
