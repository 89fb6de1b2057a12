"""PostgreSQL: alone, or as a primary with a synchronous standby."""

import hashlib
import os
import pwd
import shutil
import signal
import stat
from collections.abc import Sequence
from pathlib import Path

from local_servers import packages
from local_servers.errors import LocalServersError, NotReadyError, say
from local_servers.home import Home
from local_servers.node import Node
from local_servers.processes import Launch
from local_servers.settling import wait_until

HOST = "127.0.0.1"
DATABASE = USER = PASSWORD = "iotflow"
_SUPERUSER = "postgres"
_SERVER_USER = "postgres"  # the program refuses to run as root
_PORT, _PRIMARY_PORT, _STANDBY_PORT = 15432, 15442, 15443
_STANDBY_NAME = "standby"
_CONNECT_TIMEOUT_S = 3
_SETTLE_S = 30.0

_OPTIONS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "512MB",
    "log_timezone": "UTC",
    "timezone": "UTC",
}
_ENCODING = ["--encoding=UTF8", "--locale=C.UTF-8"]
_CREATE = f"""\
ALTER ROLE {_SUPERUSER} PASSWORD '{PASSWORD}';
CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}';
CREATE DATABASE {DATABASE} OWNER {USER};
"""


class PostgresNode(Node):
    """A server with the database `iotflow`, which belongs to the user of the same name."""

    stop_signal = signal.SIGINT  # the fast shutdown: sessions end, nothing is lost
    attempts = 6  # after kill -9 it waits for its old backends to be gone

    def __init__(self, home: Home, name: str, port: int, **options: str) -> None:
        super().__init__(home, name, HOST, port)
        self._options = options

    @property
    def url(self) -> str:
        return f"postgresql://{USER}:{PASSWORD}@{HOST}:{self.port}/{DATABASE}"

    def install(self) -> None:
        packages.install(packages.postgres_bin)

    def launch(self) -> Launch:
        command = [
            str(packages.postgres_bin() / "postgres"),
            "-D",
            str(_place(self.home, self.name)),
        ]
        for name, value in {**_OPTIONS, **self._options, "port": str(self.port)}.items():
            command += ["-c", f"{name}={value}"]
        return Launch(command, Path("/"), user=_server_user())

    def make_data(self) -> None:
        data = _own_directory(self.home, self.name)
        initdb = [str(packages.postgres_bin() / "initdb"), "-D", str(data), "-U", _SUPERUSER]
        # No password yet: it is given below, and there is no local socket to come in by.
        how = ["--auth-local=trust", "--auth-host=scram-sha-256"]
        packages.run([*initdb, *how, *_ENCODING], 120, user=_server_user())
        alone = [str(packages.postgres_bin() / "postgres"), "--single", "-j", "-D", str(data)]
        # Single-user mode with -j: a statement ends at an empty line.
        statements = _CREATE.replace(";\n", ";\n\n")
        packages.run([*alone, "postgres"], 60, user=_server_user(), text=statements)

    def probe(self) -> None:
        self.ask("SELECT count(*) FROM pg_class")

    def ask(self, query: str, user: str = USER) -> str:
        """The answer to one query, as text.

        Raises:
            NotReadyError: there is none.
        """
        where = f"host={HOST} port={self.port} dbname={DATABASE} user={user}"
        bounded = f"{where} connect_timeout={_CONNECT_TIMEOUT_S}"
        psql = [str(packages.postgres_bin() / "psql"), "-X", "-A", "-t", "-d", bounded, "-c", query]
        try:
            return packages.run(psql, 10, environment={"PGPASSWORD": PASSWORD}).strip()
        except LocalServersError as error:
            raise NotReadyError(str(error).partition("\n")[2]) from None


class StandbyNode(PostgresNode):
    """Follows a primary, which must run when this is made."""

    def __init__(self, home: Home, name: str, port: int, primary: PostgresNode) -> None:
        super().__init__(home, name, port)
        self._primary = primary

    def make_data(self) -> None:
        data = _own_directory(self.home, self.name)
        primary = f"host={HOST} port={self._primary.port} user={_SUPERUSER} password={PASSWORD}"
        source = f"{primary} application_name={_STANDBY_NAME}"
        copy = [str(packages.postgres_bin() / "pg_basebackup"), "-D", str(data), "-d", source]
        how = ["-R", "-X", "stream", "--checkpoint=fast"]
        packages.run([*copy, *how], 120, user=_server_user())


def single(home: Home) -> PostgresNode:
    return PostgresNode(home, "postgres", _PORT)


def with_standby(home: Home) -> list[PostgresNode]:
    """A primary that answers a commit only when the standby has it too, and that standby."""
    primary = PostgresNode(
        home, "postgres-primary", _PRIMARY_PORT, synchronous_standby_names=_STANDBY_NAME
    )
    return [primary, StandbyNode(home, "postgres-standby", _STANDBY_PORT, primary)]


def standby_url(nodes: Sequence[Node]) -> str:
    hosts = ",".join(f"{node.host}:{node.port}" for node in nodes)
    return f"postgresql://{USER}:{PASSWORD}@{hosts}/{DATABASE}?target_session_attrs=read-write"


def settle_standby(nodes: Sequence[PostgresNode]) -> None:
    """Wait until the standby receives what the primary commits.

    Raises:
        LocalServersError: it does not, as after a promotion: then they have to be made anew.
    """
    primary, standby = nodes

    def streams() -> None:
        if standby.ask("SELECT pg_is_in_recovery()") != "t":
            raise NotReadyError("the standby was promoted: start with --fresh")
        if primary.ask("SELECT sync_state FROM pg_stat_replication", user=_SUPERUSER) != "sync":
            raise NotReadyError("the standby does not follow; where it lags too far, use --fresh")

    wait_until("the standby", streams, _SETTLE_S)


def _server_user() -> str | None:
    return _SERVER_USER if os.geteuid() == 0 else None


def _place(home: Home, name: str) -> Path:
    """Where the data really lie: where only root may enter, in the server user's own home."""
    user = _server_user()
    if user is None or not _blocked(home.directory):
        return home.data(name)
    digest = hashlib.sha256(str(home.data(name)).encode()).hexdigest()[:12]
    return Path(pwd.getpwnam(user).pw_dir, f"local-servers-{digest}")


def _own_directory(home: Home, name: str) -> Path:
    """An empty data directory that the server's user owns and can reach."""
    data, place = home.data(name), _place(home, name)
    data.parent.mkdir(parents=True, exist_ok=True)
    user = _server_user()
    if place != data:
        say(f"{name}: {user} cannot enter {home.directory}; the data go to {place}")
        shutil.rmtree(place, ignore_errors=True)
        data.symlink_to(place)
    elif user:
        data.parent.chmod(data.parent.stat().st_mode | stat.S_IXOTH)
    place.mkdir(mode=0o700)
    if user:
        shutil.chown(place, user, user)
    return place


def _blocked(directory: Path) -> bool:
    return any(not path.stat().st_mode & stat.S_IXOTH for path in (directory, *directory.parents))
