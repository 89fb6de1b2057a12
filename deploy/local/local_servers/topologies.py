"""Which servers belong together, how they come up, and which settings they answer for."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from local_servers import cassandra, mongodb, postgres, redis
from local_servers.errors import LocalServersError, say
from local_servers.home import Home
from local_servers.node import Node, bring_up, take_down

SINGLE = ("postgres", "cassandra", "redis", "mongodb")  # in the order in which settings are told


@dataclass(frozen=True, slots=True)
class Topology:
    """Servers that make one whole.

    `settle` waits until they do. `together`: their data belong together, so where one has
    none, all are made anew, one after the other.
    """

    name: str
    nodes: Sequence[Node]
    settings: dict[str, str]
    settle: Callable[[], None] = field(default=lambda: None)
    together: bool = False


def build(home: Home, name: str, commitlog_sync: str) -> Topology:
    """The topology of that name.

    Raises:
        LocalServersError: there is none.
    """
    maker = _MAKERS.get(name)
    if maker is None:
        raise LocalServersError(f"{name}: no such topology; there are {', '.join(names())}")
    return maker(home, commitlog_sync)


def names() -> list[str]:
    return ["single", *_MAKERS]


def start(home: Home, topology: Topology) -> None:
    """Have a topology run: what runs stays as it is, what is missing is started.

    Raises:
        LocalServersError: it does not come up.
    """
    for node in topology.nodes:
        node.install()
    new = [node for node in topology.nodes if home.completed_by(node.name) is None]
    if new and topology.together:
        remove(home, topology)
    in_order = bool(new) or len(topology.nodes) == 1
    with ThreadPoolExecutor(1 if in_order else len(topology.nodes)) as pool:
        for _ in pool.map(bring_up, topology.nodes):
            pass  # an error is raised here, where its turn comes
    topology.settle()
    home.remember_settings(topology.name, topology.settings)


def stop(home: Home, topology: Topology) -> None:
    """End a topology's servers; their data stay."""
    for node in reversed(topology.nodes):
        if home.running(node.name):
            say(f"{node.name}: stops")
        take_down(home, node.name, node.stop_signal, node.stop_within_s)


def remove(home: Home, topology: Topology) -> None:
    """End a topology's servers and remove their data."""
    stop(home, topology)
    for node in topology.nodes:
        home.wipe(node.name)


def node_named(home: Home, name: str, commitlog_sync: str) -> Node:
    """The server of that name.

    Raises:
        LocalServersError: there is none.
    """
    nodes = {
        node.name: node
        for topology in _MAKERS
        for node in build(home, topology, commitlog_sync).nodes
    }
    if name not in nodes:
        raise LocalServersError(f"{name}: no such server; there are {', '.join(nodes)}")
    return nodes[name]


def _postgres(home: Home, _sync: str) -> Topology:
    node = postgres.single(home)
    return Topology("postgres", [node], {"IOTFLOW_REGISTRY__URL": node.url})


def _redis(home: Home, _sync: str) -> Topology:
    node = redis.single(home)
    url = f"redis://{node.host}:{node.port}/0"
    return Topology("redis", [node], {"IOTFLOW_CACHE__URL": url})


def _cassandra(home: Home, sync: str) -> Topology:
    nodes = [cassandra.single(home, sync)]
    return Topology("cassandra", nodes, {"IOTFLOW_TELEMETRY__URL": cassandra.url(nodes)})


def _mongodb(home: Home, _sync: str) -> Topology:
    node = mongodb.MongoNode(home)
    return Topology("mongodb", [node], {"IOTFLOW_EVENTS__URL": node.url})


def _cassandra_ring(home: Home, sync: str) -> Topology:
    nodes = cassandra.ring(home, sync)
    settings = {"IOTFLOW_TELEMETRY__URL": cassandra.url(nodes)}
    settle = partial(cassandra.settle_ring, nodes)
    return Topology("cassandra-ring", nodes, settings, settle, together=True)


def _redis_sentinel(home: Home, _sync: str) -> Topology:
    nodes = redis.sentinel(home)
    settings = {"IOTFLOW_CACHE__URL": redis.sentinel_url(nodes)}
    settle = partial(redis.settle_sentinel, nodes)
    return Topology("redis-sentinel", nodes, settings, settle, together=True)


def _redis_cluster(home: Home, _sync: str) -> Topology:
    nodes = redis.cluster(home)
    settings = {"IOTFLOW_CACHE__URL": redis.cluster_url(nodes)}
    settle = partial(redis.settle_cluster, nodes)
    return Topology("redis-cluster", nodes, settings, settle, together=True)


def _postgres_standby(home: Home, _sync: str) -> Topology:
    nodes = postgres.with_standby(home)
    settings = {"IOTFLOW_REGISTRY__URL": postgres.standby_url(nodes)}
    settle = partial(postgres.settle_standby, nodes)
    return Topology("postgres-standby", nodes, settings, settle)


_MAKERS: dict[str, Callable[[Home, str], Topology]] = {
    "postgres": _postgres,
    "cassandra": _cassandra,
    "redis": _redis,
    "mongodb": _mongodb,
    "cassandra-ring": _cassandra_ring,
    "redis-sentinel": _redis_sentinel,
    "redis-cluster": _redis_cluster,
    "postgres-standby": _postgres_standby,
}
