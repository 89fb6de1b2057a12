"""What the local servers' tool does before any server runs."""

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from local_servers import commands, cql, node, packages, processes, resp, topologies
from local_servers.errors import LocalServersError, NotReadyError, ServerEndedError
from local_servers.home import Home, Record
from local_servers.processes import Identity, Launch

from tests.deploy.conftest import ROOT


@pytest.fixture(name="home")
def _home(tmp_path: Path) -> Home:
    return Home(tmp_path / "servers", 0)


@pytest.fixture(name="sleeper")
def _sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def identity_of(pid: int) -> Identity:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Identity(pid, int(fields[19]), processes.boot_id())


def tool(home: Home, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {"LOCAL_SERVERS_DIR": str(home.directory), "PATH": os.environ["PATH"]}
    return subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "local" / "servers.py"), *arguments],
        env=own | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Answering(node.Node):
    """A web server, as a stand-in for what starts, answers or does not."""

    ready_within_s = 10.0
    code = "import http.server; http.server.test(port={port}, bind='127.0.0.1')"

    def install(self) -> None:
        pass

    def launch(self) -> Launch:
        data = self.home.data(self.name)
        return Launch([sys.executable, "-c", self.code.format(port=self.port)], data)

    def probe(self) -> None:
        with socket.create_connection((self.host, self.port), 1):
            pass


@pytest.fixture(name="server")
def _server(home: Home) -> Iterator[Answering]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with home.locked():
        yield Answering(home, "web", "127.0.0.1", port)
        node.take_down(home, "web", signal.SIGTERM, 5)


def freeze(identity: Identity) -> None:
    os.kill(identity.pid, signal.SIGSTOP)
    deadline = time.monotonic() + 5
    while not processes.is_frozen(identity):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def pid_of(server: Answering) -> int:
    record = server.home.running(server.name)
    assert record
    return record.identity.pid


def test_a_running_server_is_left_as_it_is(server: Answering) -> None:
    node.bring_up(server)
    first = pid_of(server)
    node.bring_up(server)
    assert pid_of(server) == first


def test_a_dead_server_is_started_again_on_its_data(server: Answering) -> None:
    node.bring_up(server)
    kept = server.home.data("web") / "kept"
    kept.touch()
    first = pid_of(server)
    os.kill(first, signal.SIGKILL)
    assert processes.wait_for_end(server.home.records()["web"].identity, 5)
    node.bring_up(server)
    assert pid_of(server) != first
    assert kept.exists()


def test_a_server_that_dies_while_it_is_looked_at_is_started_again(
    server: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.bring_up(server)
    first = pid_of(server)

    def die() -> None:
        os.kill(first, signal.SIGKILL)
        monkeypatch.undo()
        raise NotReadyError("dying")

    monkeypatch.setattr(server, "probe", die)
    node.bring_up(server)
    assert pid_of(server) != first


def test_half_made_data_are_made_anew(server: Answering) -> None:
    half = server.home.data("web") / "half"
    half.mkdir(parents=True)
    node.bring_up(server)
    assert not half.exists()


def test_a_server_with_another_launch_is_started_anew(server: Answering) -> None:
    node.bring_up(server)
    first = pid_of(server)
    server.code += "  # changed"
    node.bring_up(server)
    assert pid_of(server) != first


def test_a_frozen_server_is_woken(server: Answering) -> None:
    node.bring_up(server)
    first = pid_of(server)
    freeze(identity_of(first))
    node.bring_up(server)
    assert pid_of(server) == first
    assert not processes.is_frozen(server.home.records()["web"].identity)


def test_a_frozen_server_can_be_stopped(server: Answering) -> None:
    node.bring_up(server)
    record = server.home.records()["web"]
    freeze(record.identity)
    assert processes.stop(record.identity, signal.SIGTERM, 5)


def test_a_server_runs_in_a_session_of_its_own_without_our_streams(server: Answering) -> None:
    node.bring_up(server)
    pid = pid_of(server)
    assert os.getsid(pid) == pid
    streams = [str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in range(3)]
    log = str(server.home.log("web"))
    assert streams == ["/dev/null", log, log]


def test_another_timer_slack_is_another_launch() -> None:
    launch = Launch(["sleep", "60"], Path("/"))
    other = replace(launch, timer_slack_ns=3_000_000)
    assert node.fingerprint(launch) != node.fingerprint(other)


def test_where_timer_slack_cannot_be_set_a_server_starts_all_the_same(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "get_native_id", lambda: 2**30)  # no such thread
    launch = Launch(["sleep", "60"], Path("/"), timer_slack_ns=3_000_000)
    spawned = processes.spawn(launch, home.directory / "sleep.log")
    assert processes.stop(spawned, signal.SIGTERM, 5)


def test_a_server_gets_its_timer_slack_and_ours_stays(home: Home) -> None:
    def slack_ns(pid: int) -> int:
        return int(Path(f"/proc/{pid}/timerslack_ns").read_text())

    ours = slack_ns(threading.get_native_id())
    launch = Launch(["sleep", "60"], Path("/"), timer_slack_ns=3_000_000)
    spawned = processes.spawn(launch, home.directory / "sleep.log")
    try:
        assert slack_ns(spawned.pid) == 3_000_000
        assert slack_ns(threading.get_native_id()) == ours
    finally:
        assert processes.stop(spawned, signal.SIGTERM, 5)


def test_a_server_that_ends_at_once_tells_its_last_words(server: Answering) -> None:
    server.code = "raise SystemExit('no room left')"
    with pytest.raises(ServerEndedError, match=r"(?s)ended while it was starting.*no room left"):
        node.bring_up(server)


def test_a_server_that_never_answers_is_waited_for_in_vain(server: Answering) -> None:
    server.code = "import time; print('thinking', flush=True); time.sleep(60)"
    server.ready_within_s = 0.5
    with pytest.raises(LocalServersError, match=r"(?s)did not answer within 0 s.*thinking"):
        node.bring_up(server)


def test_a_taken_port_is_told(server: Answering) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", server.port))
        taken.listen()
        with pytest.raises(LocalServersError, match="LOCAL_SERVERS_PORT_OFFSET"):
            node.bring_up(server)
    assert server.home.running("web") is None


def test_stop_spares_a_process_that_only_has_the_pid(
    home: Home, sleeper: subprocess.Popen[bytes]
) -> None:
    mine = identity_of(sleeper.pid)
    with home.locked():
        for other in (replace(mine, start_ticks=1), replace(mine, boot_id="earlier")):
            home.remember("redis", Record(other, "127.0.0.1", 1, "log", ""))
            node.take_down(home, "redis", signal.SIGTERM, 1)
            assert "redis" not in home.records()
    assert sleeper.poll() is None
    assert processes.is_alive(mine)


def test_a_zombie_is_dead(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identity_of(sleeper.pid)
    sleeper.kill()
    assert processes.wait_for_end(identity, 5)
    assert Path(f"/proc/{sleeper.pid}").exists()  # not waited for yet


def test_a_second_start_waits_for_the_first(home: Home) -> None:
    with home.locked():
        done = subprocess.Popen(
            [sys.executable, str(ROOT / "deploy" / "local" / "servers.py"), "stop"],
            env={"LOCAL_SERVERS_DIR": str(home.directory), "PATH": os.environ["PATH"]},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert done.stderr
        assert "Waiting" in done.stderr.readline()
        assert done.poll() is None
    assert done.wait(timeout=10) == 0
    done.stderr.close()


@pytest.mark.parametrize("offset", ["-1", "many", "4001"])
def test_a_port_offset_out_of_bounds_is_refused(home: Home, offset: str) -> None:
    done = tool(home, "status", LOCAL_SERVERS_PORT_OFFSET=offset)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "LOCAL_SERVERS_PORT_OFFSET: a whole number from 0 to 4000\n"


def test_a_directory_with_a_space_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    directory = tmp_path / "my servers"
    done = tool(Home(directory, 0), "start", "redis")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "set LOCAL_SERVERS_DIR to a path without a space" in done.stderr
    assert not directory.exists()


@pytest.mark.parametrize("verb", ["start", "stop", "restart-node"])
def test_an_unknown_name_is_told_with_those_that_there_are(home: Home, verb: str) -> None:
    done = tool(home, verb, "oracle")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("oracle: no such ")
    assert "cassandra" in done.stderr


def test_a_spoilt_state_is_told(home: Home) -> None:
    home.directory.mkdir()
    (home.directory / "state.json").write_text("{")
    done = tool(home, "status")
    assert done.returncode == 1
    assert "state.json is not JSON: remove it" in done.stderr


def test_whoever_may_not_install_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", "/nowhere")
    message = "Not installed: redis-server, maven .*apt-get install redis-server maven"
    with pytest.raises(LocalServersError, match=message):
        packages.install(packages.redis_server, packages.maven)


def test_two_sets_of_servers_share_no_port(tmp_path: Path) -> None:
    def ports(offset: int) -> list[tuple[str, int]]:
        home = Home(tmp_path, offset)
        nodes = [
            one
            for name in commands.expand(topologies.names())
            for one in topologies.build(home, name, "batch").nodes
        ]
        own = [(one.host, one.port) for one in nodes]
        return own + [address for one in nodes for address in one.other_addresses()]

    taken = ports(0) + ports(100)
    assert len(set(taken)) == len(taken)
    assert all(port < 32_768 for _, port in ports(4000))


def test_settings_need_no_quotes_in_a_shell(tmp_path: Path) -> None:
    home = Home(tmp_path, 0)
    for name in commands.expand(topologies.names()):
        for variable, url in topologies.build(home, name, "batch").settings.items():
            read = subprocess.run(
                ["sh", "-c", f'eval "{variable}={url}"; printf %s "${variable}"'],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
            assert read.stdout == url


def test_something_else_on_the_port_is_not_taken_for_a_server() -> None:
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), http.server.BaseHTTPRequestHandler
    ) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        port = other.server_address[1]
        with pytest.raises((NotReadyError, OSError)):
            cql.query("127.0.0.1", port, "SELECT 1", timeout_s=2)
        with pytest.raises((NotReadyError, OSError)), resp.Redis("127.0.0.1", port, 2) as redis:
            redis("PING")
        other.shutdown()
