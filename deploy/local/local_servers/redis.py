"""Redis: alone, with a replica under Sentinels, or as a cluster of three masters."""

from collections.abc import Sequence
from pathlib import Path

from local_servers import packages
from local_servers.errors import NotReadyError, say
from local_servers.home import Home
from local_servers.node import Node
from local_servers.processes import Launch
from local_servers.resp import Redis
from local_servers.settling import wait_until

HOST = "127.0.0.1"
SERVICE = "iotflow"  # the name under which the Sentinels know the primary
_SLOTS = 16384
_PORT, _PRIMARY_PORT, _REPLICA_PORT, _SENTINEL_PORT, _CLUSTER_PORT = (
    16379,
    16380,
    16381,
    26479,
    16390,
)
_BUS = 10_000  # a cluster node also listens this far above its port
_SETTLE_S = 40.0

# A cache: nothing is kept on disk, and memory is bounded.
_CACHE = """\
bind {host}
port {port}
protected-mode yes
save ""
appendonly no
maxmemory {megabytes}mb
maxmemory-policy allkeys-lru
dir {data}
"""
_REPLICATED = """\
repl-diskless-sync-delay 0
repl-ping-replica-period 1
repl-timeout 10
"""
_CLUSTERED = """\
cluster-enabled yes
cluster-config-file nodes.conf
cluster-node-timeout 2000
cluster-require-full-coverage no
"""
_SENTINEL = """\
bind {host}
port {port}
dir {data}
sentinel monitor {service} {host} {primary} 2
sentinel down-after-milliseconds {service} 1500
sentinel failover-timeout {service} 6000
sentinel parallel-syncs {service} 1
"""


class RedisNode(Node):
    """A Redis server.

    `keeps_config`: it rewrites its configuration itself (a failover does), so that this is
    written only once.
    """

    ready_within_s = 20.0
    stop_within_s = 10.0

    def __init__(
        self,
        home: Home,
        name: str,
        port: int,
        *,
        extra: str = "",
        megabytes: int = 256,
        keeps_config: bool = False,
    ) -> None:
        super().__init__(home, name, HOST, port)
        self._extra = extra
        self._megabytes = megabytes
        self._keeps_config = keeps_config

    def install(self) -> None:
        packages.install(packages.redis_server)

    def launch(self) -> Launch:
        data = self.home.data(self.name)
        config = data / "redis.conf"
        text = _CACHE.format(host=HOST, port=self.port, data=data, megabytes=self._megabytes)
        return _launch([], config, text + self._extra, kept=self._keeps_config)

    def other_addresses(self) -> list[tuple[str, int]]:
        return [(HOST, self.port + _BUS)] if self._extra == _CLUSTERED else []

    def probe(self) -> None:
        with Redis(HOST, self.port) as redis:
            # INFO, not PING: it says that loading is over, and on a replica works as well.
            if redis.info("INFO", "persistence").get("loading") != "0":
                raise NotReadyError("it is loading")


class SentinelNode(Node):
    """One of the Sentinels that watch over the primary."""

    ready_within_s = 20.0
    stop_within_s = 10.0

    def __init__(self, home: Home, number: int, primary: Node) -> None:
        port = _SENTINEL_PORT + number - 1
        super().__init__(home, f"redis-sentinel-{number}", HOST, port)
        self._primary = primary

    def install(self) -> None:
        packages.install(packages.redis_server)

    def launch(self) -> Launch:
        data = self.home.data(self.name)
        text = _SENTINEL.format(
            host=HOST, port=self.port, data=data, service=SERVICE, primary=self._primary.port
        )
        return _launch(["--sentinel"], data / "sentinel.conf", text, kept=True)

    def probe(self) -> None:
        with Redis(HOST, self.port) as redis:
            redis("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)


def _launch(options: Sequence[str], config: Path, text: str, *, kept: bool) -> Launch:
    command = [packages.redis_server(), str(config), *options]
    files = {config: text}
    if kept:
        return Launch(command, config.parent, kept_files=files)
    return Launch(command, config.parent, files=files)


def single(home: Home) -> RedisNode:
    return RedisNode(home, "redis", _PORT)


def sentinel(home: Home) -> list[Node]:
    """A primary, its replica, and three Sentinels of which two decide."""
    primary = _replicated(home, "redis-sentinel-primary", _PRIMARY_PORT, "")
    of_primary = f"replicaof {HOST} {primary.port}\n"
    replica = _replicated(home, "redis-sentinel-replica", _REPLICA_PORT, of_primary)
    return [primary, replica, *(SentinelNode(home, number, primary) for number in (1, 2, 3))]


def _replicated(home: Home, name: str, port: int, replication: str) -> RedisNode:
    extra = _REPLICATED + replication
    return RedisNode(home, name, port, extra=extra, megabytes=128, keeps_config=True)


def cluster(home: Home) -> list[RedisNode]:
    """Three masters, no replicas."""
    return [
        RedisNode(
            home,
            f"redis-cluster-{number}",
            _CLUSTER_PORT + number - 1,
            extra=_CLUSTERED,
            megabytes=128,
        )
        for number in (1, 2, 3)
    ]


def sentinel_url(nodes: Sequence[Node]) -> str:
    return f"redis+sentinel://{_hosts(nodes[2:])}/{SERVICE}"


def cluster_url(nodes: Sequence[Node]) -> str:
    return f"redis+cluster://{_hosts(nodes)}"


def _hosts(nodes: Sequence[Node]) -> str:
    return ",".join(f"{node.host}:{node.port}" for node in nodes)


def settle_sentinel(nodes: Sequence[Node]) -> None:
    """Wait until every Sentinel knows the others and names a primary that has its replica."""
    wait_until("the Sentinels", lambda: [_check_sentinel(node) for node in nodes[2:]], _SETTLE_S)


def _check_sentinel(node: Node) -> None:
    with Redis(node.host, node.port) as redis:
        reply = redis("SENTINEL", "MASTER", SERVICE)
        words = [str(word) for word in reply] if isinstance(reply, list) else []
        known = dict(zip(words[::2], words[1::2], strict=False))
    if known.get("flags") != "master" or known.get("num-other-sentinels") != "2":
        raise NotReadyError(f"{node.name} sees {known.get('flags')}, others do not all show")
    with Redis(known["ip"], int(known["port"])) as primary:
        replication = primary.info("INFO", "replication")
    if replication.get("role") != "master" or "state=online" not in replication.get("slave0", ""):
        raise NotReadyError("the primary has no replica")


def settle_cluster(nodes: Sequence[Node]) -> None:
    """Join the three masters, if they are not, and wait until each serves the whole cluster."""
    if any(_cluster_info(node)["cluster_slots_assigned"] != str(_SLOTS) for node in nodes):
        _join(nodes)
    wait_until("the cluster", lambda: [_check_cluster(node) for node in nodes], _SETTLE_S)


def _join(nodes: Sequence[Node]) -> None:
    share = _SLOTS // len(nodes) + 1
    for epoch, node in enumerate(nodes, start=1):
        first = (epoch - 1) * share
        with Redis(node.host, node.port) as redis:
            redis("FLUSHALL")
            redis("CLUSTER", "RESET", "HARD")
            redis("CLUSTER", "SET-CONFIG-EPOCH", epoch)
            redis("CLUSTER", "ADDSLOTSRANGE", first, min(first + share, _SLOTS) - 1)
    with Redis(nodes[0].host, nodes[0].port) as redis:
        for other in nodes[1:]:
            redis("CLUSTER", "MEET", other.host, other.port)
    say(f"{len(nodes)} masters joined")


def _check_cluster(node: Node) -> None:
    info = _cluster_info(node)
    if info["cluster_state"] != "ok" or info["cluster_slots_ok"] != str(_SLOTS):
        raise NotReadyError(f"{node.name} sees the cluster {info['cluster_state']}")


def _cluster_info(node: Node) -> dict[str, str]:
    with Redis(node.host, node.port) as redis:
        return redis.info("CLUSTER", "INFO")
