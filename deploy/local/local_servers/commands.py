"""What can be asked of the servers on the command line."""

import json
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from local_servers import topologies
from local_servers.errors import LocalServersError, NotReadyError
from local_servers.home import Home, Record
from local_servers.node import bring_up, take_down
from local_servers.processes import is_alive, is_frozen
from local_servers.topologies import SINGLE, Topology


def start(home: Home, asked: Sequence[str], commitlog_sync: str, *, fresh: bool) -> None:
    """Have the topologies run and print their settings, one NAME=value a line.

    Raises:
        LocalServersError: one of them does not come up.
    """
    chosen = [topologies.build(home, name, commitlog_sync) for name in expand(asked)]
    with home.locked():
        for topology in chosen if fresh else ():
            topologies.remove(home, topology)
        with ThreadPoolExecutor(len(chosen)) as pool:
            started = [pool.submit(topologies.start, home, topology) for topology in chosen]
        errors = [error for task in started if (error := task.exception())]
    if errors:
        _raise_all(errors)
    print_settings(chosen)


def print_settings(chosen: Iterable[Topology]) -> None:
    """Where two topologies answer for one setting, the later one holds."""
    settings: dict[str, str] = {}
    for topology in chosen:
        settings |= topology.settings
    sys.stdout.write("".join(f"{name}={value}\n" for name, value in settings.items()))


def stop(home: Home, asked: Sequence[str]) -> None:
    """End the topologies' servers, or whatever runs where none is named."""
    wanted = expand(asked or topologies.names())
    with home.locked():
        for name in wanted:
            topologies.stop(home, topologies.build(home, name, "batch"))


def remove(home: Home, asked: Sequence[str]) -> None:
    """End the topologies' servers and remove their data, or all where none is named."""
    wanted = expand(asked or topologies.names())
    with home.locked():
        for name in wanted:
            topologies.remove(home, topologies.build(home, name, "batch"))


def restart_node(home: Home, name: str, commitlog_sync: str) -> None:
    """End one server if it runs, and start it on its data.

    Raises:
        LocalServersError: there is no such server, or it does not come up.
    """
    node = topologies.node_named(home, name, commitlog_sync)
    with home.locked():
        take_down(home, name, node.stop_signal, node.stop_within_s)
        node.install()
        bring_up(node)


def status(home: Home, *, as_json: bool) -> None:
    """Print every server that was started and not stopped, and whether it runs and answers."""
    nodes = {name: _describe(home, name, record) for name, record in home.records().items()}
    if as_json:
        text = json.dumps({"nodes": nodes, "settings": home.settings()}, indent=2)
    else:
        text = "\n".join(_line(name, node) for name, node in nodes.items()) or "Nothing runs."
    sys.stdout.write(f"{text}\n")


def expand(asked: Sequence[str]) -> list[str]:
    """The topologies' names, `single` being the four servers that the service needs."""
    wanted = [
        part for name in asked or ["single"] for part in (SINGLE if name == "single" else (name,))
    ]
    return list(dict.fromkeys(wanted))


def _describe(home: Home, name: str, record: Record) -> dict[str, Any]:
    running = is_alive(record.identity)
    frozen = running and is_frozen(record.identity)
    return {
        "pid": record.identity.pid,
        "running": running,
        "frozen": frozen,
        "answers": running and not frozen and _answers(home, name),
        "host": record.host,
        "port": record.port,
        "data": str(home.data(name)),
        "log": record.log,
    }


def _answers(home: Home, name: str) -> bool:
    with suppress(NotReadyError, LocalServersError, OSError):
        topologies.node_named(home, name, "batch").probe()
        return True
    return False


def _line(name: str, node: dict[str, Any]) -> str:
    if node["frozen"]:
        word = "frozen"
    elif node["running"]:
        word = "answers" if node["answers"] else "does not answer"
    else:
        word = "dead"
    return f"{name:24} {node['host']}:{node['port']:<6} pid {node['pid']:<8} {word}"


def _raise_all(errors: Sequence[BaseException]) -> None:
    for error in errors:
        if not isinstance(error, LocalServersError):
            raise error
    raise LocalServersError("\n\n".join(str(error) for error in errors))
