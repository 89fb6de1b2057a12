"""One server: how it is launched, how one knows that it answers, and what is done about it."""

import hashlib
import shutil
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from local_servers import processes
from local_servers.errors import LocalServersError, NotReadyError, ServerEndedError, say
from local_servers.home import Home, Record
from local_servers.processes import Identity, Launch

_POLL_S = 0.05

_BETWEEN_ATTEMPTS_S = 2.0


class Node(ABC):
    """A single server process on a loopback address."""

    ready_within_s: float = 60.0
    stop_signal: int = signal.SIGTERM
    stop_within_s: float = 20.0
    attempts: int = 1  # launches, where one that ends at once may succeed a moment later

    def __init__(self, home: Home, name: str, host: str, port: int) -> None:
        self.home = home
        self.name = name
        self.host = host
        self.port = port + home.port_offset

    @abstractmethod
    def install(self) -> None:
        """Get the programs that it needs; at once where they are there."""

    @abstractmethod
    def launch(self) -> Launch:
        """How it is started: the same answer as long as nothing changed."""

    @abstractmethod
    def probe(self) -> None:
        """Ask it something that only a working server can answer.

        Raises:
            NotReadyError: it answers wrongly.
            OSError: it does not answer.
        """

    def make_data(self) -> None:
        """Fill a new data directory, where the server does not do that itself."""
        self.home.data(self.name).mkdir(parents=True)

    def other_addresses(self) -> list[tuple[str, int]]:
        """Hosts and ports that it listens on besides its own."""
        return []


def fingerprint(launch: Launch) -> str:
    """Tells launches apart: a running server with another one has to be started anew."""
    parts = [*launch.command, str(launch.user), str(launch.timer_slack_ns)]
    for files in (launch.files, launch.kept_files):
        parts += [f"{name}={text}" for name, text in files.items()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def bring_up(node: Node) -> None:
    """Have the server run and answer: start it, wake it, or leave it as it is.

    Raises:
        LocalServersError: it does not come up; the message ends with its last words.
    """
    launch = node.launch()
    record = node.home.running(node.name)
    if record and record.fingerprint != fingerprint(launch):
        say(f"{node.name}: was started otherwise; starts anew")
        take_down(node.home, node.name, node.stop_signal, node.stop_within_s)
        record = None
    if not (record and _still_answers(node, record)):
        _start(node, launch)
    if node.home.completed_by(node.name) is None:
        node.home.mark_complete(node.name, fingerprint(launch))


def _still_answers(node: Node, record: Record) -> bool:
    if processes.is_frozen(record.identity):
        say(f"{node.name}: was frozen; wakes up")
        processes.send(record.identity, signal.SIGCONT)
    try:
        _wait_until_ready(node, record.identity)
    except ServerEndedError:  # it was about to die when it was looked at
        return False
    return True


def take_down(home: Home, name: str, signal_number: int, grace_s: float) -> None:
    """End a server that was started here; nothing where it does not run."""
    record = home.running(name)
    if record and not processes.stop(record.identity, signal_number, grace_s):
        say(f"{name}: had to be killed")
    home.forget(name)


def _start(node: Node, launch: Launch) -> None:
    began = time.monotonic()
    for host, port in ((node.host, node.port), *node.other_addresses()):
        _refuse_taken_port(node.name, host, port)
    _prepare(node, launch)
    for attempt in range(1, node.attempts + 1):
        identity = _spawn(node, launch)
        try:
            _wait_until_ready(node, identity)
            break
        except ServerEndedError:
            if attempt == node.attempts:
                raise
            time.sleep(_BETWEEN_ATTEMPTS_S)
    say(f"{node.name}: answers on {node.host}:{node.port} after {time.monotonic() - began:.1f} s")


def _prepare(node: Node, launch: Launch) -> None:
    made_by = node.home.completed_by(node.name)
    # Files that the server itself keeps cannot be brought up to date: they are made anew.
    outdated = bool(launch.kept_files) and made_by != fingerprint(launch)
    if made_by is None or outdated:
        node.home.wipe(node.name)
        node.make_data()
        _write(launch.kept_files)
    shutil.rmtree(node.home.config(node.name), ignore_errors=True)
    _write(launch.files)


def _write(files: Mapping[Path, str]) -> None:
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _spawn(node: Node, launch: Launch) -> Identity:
    log = node.home.log(node.name)
    try:
        identity = processes.spawn(launch, log)
    except OSError as error:
        raise LocalServersError(f"{launch.command[0]} cannot be run: {error.strerror}") from None
    node.home.remember(
        node.name, Record(identity, node.host, node.port, str(log), fingerprint(launch))
    )
    return identity


def _wait_until_ready(node: Node, identity: Identity) -> None:
    deadline = time.monotonic() + node.ready_within_s
    while True:
        alive = processes.is_alive(identity)
        try:
            node.probe()
            if alive:  # looked at first: the answer came from this process
                return
            why = "it does not run"
        except (NotReadyError, OSError) as error:
            why = str(error)
        if not alive:
            raise ServerEndedError(_failure(node, "ended while it was starting"))
        if time.monotonic() > deadline:
            waited = f"did not answer within {node.ready_within_s:.0f} s ({why})"
            raise LocalServersError(_failure(node, waited))
        time.sleep(_POLL_S)


def _failure(node: Node, what: str) -> str:
    log = node.home.log(node.name)
    return f"{node.name} {what}. The end of {log}:\n{processes.last_lines(log)}"


def _refuse_taken_port(name: str, host: str, port: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise LocalServersError(
                f"{name}: port {port} of {host} cannot be had ({error.strerror}): "
                "another program uses it; end that, or set LOCAL_SERVERS_PORT_OFFSET=100, say"
            ) from None
