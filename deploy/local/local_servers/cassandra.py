"""Apache Cassandra 5: a single node, or a ring of three, from the jar that Maven Central has."""

from collections.abc import Sequence

from local_servers import artifacts, cql, packages
from local_servers.errors import NotReadyError
from local_servers.home import SOURCES, Home
from local_servers.node import Node
from local_servers.processes import Launch
from local_servers.settling import wait_until

KEYSPACE = "iotflow"
COMMITLOG_SYNCS = {
    # An acknowledged write is on disk (batch, group), or will be within 10 s (periodic).
    "batch": "commitlog_sync: batch",
    "group": "commitlog_sync: group\ncommitlog_sync_group_window: 10ms",
    "periodic": "commitlog_sync: periodic\ncommitlog_sync_period: 10000ms",
}
_PORT, _STORAGE_PORT, _JMX_PORT = 19042, 17000, 17199
_RING_PORT, _RING_STORAGE_PORT, _RING_JMX_PORT = 19052, 17010, 17211
_SETTLE_S = 60.0
# Its idle workers sleep for 10 us and look again. On a small virtual machine, where every timer
# is an exit to the host, that takes half of a core (docs/decisions/0017).
_TIMER_SLACK_NS = 2_000_000
_TEMPLATES = ("cassandra.yaml", "cassandra-rackdc.properties", "logback.xml", "java.options")
# A machine for tests has no need to wait for gossip from far away.
_QUICK_START = [
    "-Dcassandra.ring_delay_ms=1000",
    "-Dcassandra.skip_wait_for_gossip_to_settle=0",
    "-Dcassandra.superuser_setup_delay_ms=0",
    "-Djava.net.preferIPv4Stack=true",
    "-XX:+PerfDisableSharedMem",
]


class CassandraNode(Node):
    """One node. Clients need no password."""

    ready_within_s = 120.0
    stop_within_s = 30.0
    attempts = 6  # on a busy machine a node of a ring may not reach the others in time

    def __init__(
        self,
        home: Home,
        name: str,
        *,
        host: str = "127.0.0.1",
        ports: tuple[int, int, int] = (_PORT, _STORAGE_PORT, _JMX_PORT),
        ring: bool = False,
        heap: str = "512M",
        sync: str = "batch",
    ) -> None:
        super().__init__(home, name, host, ports[0])
        self._storage_port, self._jmx_port = (port + home.port_offset for port in ports[1:])
        self._ring = ring
        self._heap = heap
        self._sync = sync

    def install(self) -> None:
        artifacts.fetch(self.home, "cassandra")

    def launch(self) -> Launch:
        config = self.home.config(self.name)
        data = self.home.data(self.name)
        heap = [f"-Xms{self._heap}", f"-Xmx{self._heap}", "-XX:+UseG1GC", "-Xss512k"]
        places = [
            f"-Dcassandra.config=file://{config}/cassandra.yaml",
            f"-Dcassandra.storagedir={data}",
            f"-Dlogback.configurationFile={config}/logback.xml",
            f"-Dcassandra-rackdc.properties=file://{config}/cassandra-rackdc.properties",
            f"-Dcassandra.jmx.local.port={self._jmx_port}",
            "-Dcassandra-foreground=yes",
            "-Djdk.attach.allowAttachSelf=true",
        ]
        jars = f"{config}:{artifacts.jars(self.home, 'cassandra')}/*"
        java = [packages.java(), f"@{config}/java.options", "-ea:org.apache.cassandra...", *heap]
        main = ["-cp", jars, "org.apache.cassandra.service.CassandraDaemon"]
        files = {config / name: self._filled(name) for name in _TEMPLATES}
        command = [*java, *_QUICK_START, *places, *main]
        return Launch(command, data, files=files, timer_slack_ns=_TIMER_SLACK_NS)

    def _filled(self, name: str) -> str:
        text = (SOURCES / "cassandra" / name).read_text()
        values = {
            "cluster": "ring" if self._ring else "single",
            "host": self.host,
            "port": str(self.port),
            "storage_port": str(self._storage_port),
            "data": str(self.home.data(self.name)),
            "commitlog_sync": COMMITLOG_SYNCS[self._sync],
            "auto_bootstrap": "true" if self._ring else "false",
        }
        for key, value in values.items():
            text = text.replace(f"@{key}@", value)
        return text

    def other_addresses(self) -> list[tuple[str, int]]:
        # Management is on the first loopback address, whichever is the node's own.
        return [(self.host, self._storage_port), ("127.0.0.1", self._jmx_port)]

    def probe(self) -> None:
        if not cql.query(self.host, self.port, "SELECT release_version FROM system.local"):
            raise NotReadyError("it does not know itself")


def single(home: Home, sync: str) -> CassandraNode:
    return CassandraNode(home, "cassandra", sync=sync)


def ring(home: Home, sync: str) -> list[CassandraNode]:
    """Three nodes on 127.0.0.1, .2 and .3, as three hosts would be: on the same ports."""
    return [
        CassandraNode(
            home,
            f"cassandra-ring-{number}",
            host=f"127.0.0.{number}",
            ports=(_RING_PORT, _RING_STORAGE_PORT, _RING_JMX_PORT + number - 1),
            ring=True,
            heap="384M",
            sync=sync,
        )
        for number in (1, 2, 3)
    ]


def url(nodes: Sequence[Node]) -> str:
    hosts = ",".join(f"{node.host}:{node.port}" for node in nodes)
    return f"cassandra://{hosts}/{KEYSPACE}?replication={len(nodes)}"


def settle_ring(nodes: Sequence[Node]) -> None:
    """Wait until each node, as a coordinator, reaches all three replicas of a table."""
    statement = (
        "SELECT keyspace_name FROM system_distributed.view_build_status "
        "WHERE keyspace_name = 'none' AND view_name = 'none'"
    )

    def all_answer() -> None:
        for node in nodes:
            peers = cql.query(node.host, node.port, "SELECT peer FROM system.peers_v2")
            if len(peers) != len(nodes) - 1:
                raise NotReadyError(f"{node.name} knows {len(peers)} other nodes")
            cql.query(node.host, node.port, statement, cql.ALL)

    wait_until("the ring", all_answer, _SETTLE_S)
