#!/usr/bin/env python3
"""Start, stop and look at the database servers that IoTFlow runs on, on this machine alone.

Needs Python 3.11 and nothing else: it runs before there is any environment. What it installs
and where it keeps what is told in the README.md beside it.
"""

import argparse
import sys

from local_servers import commands, topologies
from local_servers.cassandra import COMMITLOG_SYNCS
from local_servers.errors import LocalServersError, say
from local_servers.home import Home


def main() -> int:
    """The command line. Returns the exit status: 0, or 1 with a message on standard error."""
    arguments = _parser().parse_args()
    try:
        if not sys.platform.startswith("linux"):
            raise LocalServersError("The servers run on Linux alone; elsewhere use docker compose")
        _run(Home.from_environment(), arguments)
    except LocalServersError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("Interrupted; what has started runs on (stop ends it)")
        return 130
    return 0


def _run(home: Home, arguments: argparse.Namespace) -> None:
    match arguments.command:
        case "start":
            commands.start(
                home, arguments.topology, arguments.commitlog_sync, fresh=arguments.fresh
            )
        case "stop":
            commands.stop(home, arguments.topology)
        case "remove":
            commands.remove(home, arguments.topology)
        case "restart-node":
            commands.restart_node(home, arguments.name, arguments.commitlog_sync)
        case _:
            commands.status(home, as_json=arguments.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="servers.py", description=(__doc__ or "").split("\n")[0])
    verbs = parser.add_subparsers(dest="command", required=True)
    start = verbs.add_parser("start", help="start what does not run, and print the settings")
    start.add_argument("--fresh", action="store_true", help="remove the topologies' data first")
    stop = verbs.add_parser("stop", help="end what was started; the data stay")
    remove = verbs.add_parser("remove", help="end what was started and remove its data")
    for verb in (start, stop, remove):
        verb.add_argument("topology", nargs="*", help=", ".join(topologies.names()))
    restart = verbs.add_parser("restart-node", help="start one server anew, dead or alive")
    restart.add_argument("name")
    for verb in (start, restart):
        verb.add_argument("--commitlog-sync", choices=list(COMMITLOG_SYNCS), default="batch")
    status = verbs.add_parser("status", help="what runs, where, and whether it answers")
    status.add_argument("--json", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
