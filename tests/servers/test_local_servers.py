"""The tool that starts real servers, on a set of its own beside whatever else runs here."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import acsylla
import asyncpg
import pytest
from pymongo import AsyncMongoClient
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.sentinel import MasterNotFoundError

ROOT = Path(__file__).resolve().parents[2]
SERVERS = [sys.executable, str(ROOT / "deploy" / "local" / "servers.py")]
SINGLE = ["postgres", "cassandra", "redis", "mongodb"]
PORT_OFFSET = 1000

pytestmark = pytest.mark.servers


class Tool:
    """deploy/local/servers.py with a directory and ports of its own."""

    def __init__(self, directory: Path) -> None:
        self.environment = os.environ | {
            "LOCAL_SERVERS_DIR": str(directory),
            "LOCAL_SERVERS_PORT_OFFSET": str(PORT_OFFSET),
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # Were a server to hold one of these pipes, this would not return.
        return subprocess.run(
            [*SERVERS, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def start(self, *arguments: str) -> dict[str, str]:
        done = self.run("start", *arguments)
        assert done.returncode == 0, done.stderr
        return dict(line.split("=", 1) for line in done.stdout.splitlines())

    def nodes(self) -> dict[str, Any]:
        nodes: dict[str, Any] = json.loads(self.run("status", "--json").stdout)["nodes"]
        return nodes

    def pids(self, *names: str) -> dict[str, int]:
        nodes = self.nodes()
        return {name: nodes[name]["pid"] for name in names or SINGLE}

    def kill(self, name: str, signal_number: int = signal.SIGKILL) -> None:
        os.kill(self.pids(name)[name], signal_number)


@pytest.fixture(scope="module", name="tool")
def _tool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tool]:
    tool = Tool(tmp_path_factory.mktemp("servers"))
    yield tool
    pids = [node["pid"] for node in tool.nodes().values()]
    assert tool.run("remove").returncode == 0
    assert tool.nodes() == {}
    assert not [pid for pid in pids if is_there(pid)]


@pytest.fixture(scope="module", name="single")
def _single(tool: Tool) -> dict[str, str]:
    return tool.start()


def is_there(pid: int) -> bool:
    """Whether a process still does something; one that ended may wait to be collected."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def write_and_count_postgres(url: str) -> int:
    connection = await asyncpg.connect(url, timeout=10)
    await connection.execute("CREATE TABLE IF NOT EXISTS seen (id SERIAL PRIMARY KEY)")
    await connection.execute("INSERT INTO seen DEFAULT VALUES")
    count: int = await connection.fetchval("SELECT count(*) FROM seen")
    await connection.close()
    return count


async def cql(url: str, *statements: str, consistency: str = "LOCAL_QUORUM") -> list[Any]:
    """Run statements, each on the session that the first made; the last one's rows."""
    hosts = url.removeprefix("cassandra://").partition("/")[0].split(",")
    cluster = acsylla.create_cluster(
        [host.partition(":")[0] for host in hosts],
        port=int(hosts[0].partition(":")[2]),
        connect_timeout=5,
        request_timeout=10,
        consistency=getattr(acsylla.Consistency, consistency),
        log_level="CRITICAL",
    )
    session = await cluster.create_session()
    rows: list[Any] = []
    for statement in statements:
        rows = list(await session.execute(acsylla.create_statement(statement)))
    await session.close()
    cluster.destroy()
    return rows


def cassandra_schema(replication: int) -> list[str]:
    strategy = f"{{'class': 'NetworkTopologyStrategy', 'datacenter1': {replication}}}"
    return [
        f"CREATE KEYSPACE IF NOT EXISTS probe WITH replication = {strategy}",
        "CREATE TABLE IF NOT EXISTS probe.seen (k int, id timeuuid, PRIMARY KEY (k, id))",
    ]


async def write_and_count_cassandra(url: str) -> int:
    insert = "INSERT INTO probe.seen (k, id) VALUES (1, now())"
    count = "SELECT count(*) AS n FROM probe.seen WHERE k = 1"
    replication = int(url.rpartition("replication=")[2])
    (row,) = await cql(url, *cassandra_schema(replication), insert, count)
    return int(row.n)


async def write_and_count_redis(url: str) -> int:
    async with Redis.from_url(url) as redis:
        return int(await redis.incr("seen"))


async def write_and_count_mongodb(url: str) -> int:
    async with AsyncMongoClient(url, serverSelectionTimeoutMS=5000) as client:
        seen = client.get_default_database()["seen"]
        await seen.insert_one({"at": time.time()})
        return await seen.count_documents({})


WRITE_AND_COUNT = {
    "postgres": ("IOTFLOW_REGISTRY__URL", write_and_count_postgres),
    "cassandra": ("IOTFLOW_TELEMETRY__URL", write_and_count_cassandra),
    "redis": ("IOTFLOW_CACHE__URL", write_and_count_redis),
    "mongodb": ("IOTFLOW_EVENTS__URL", write_and_count_mongodb),
}


async def test_standard_output_is_the_four_settings_and_nothing_else(
    single: dict[str, str],
) -> None:
    assert list(single) == [setting for setting, _ in WRITE_AND_COUNT.values()]


@pytest.mark.parametrize("name", SINGLE)
async def test_each_server_answers_its_own_client(single: dict[str, str], name: str) -> None:
    setting, write_and_count = WRITE_AND_COUNT[name]
    first = await write_and_count(single[setting])
    assert await write_and_count(single[setting]) == first + 1


async def test_where_all_run_a_start_is_quick_and_changes_nothing(
    tool: Tool, single: dict[str, str]
) -> None:
    before = tool.pids()
    took_s: list[float] = []
    for _ in range(3):
        began = time.monotonic()
        assert tool.start() == single
        took_s.append(time.monotonic() - began)
    assert min(took_s) < 2, "a busy machine adds to some, a wait would add to all"
    assert tool.pids() == before


@pytest.mark.parametrize("name", SINGLE)
async def test_what_died_is_started_again_while_the_others_run_on(
    tool: Tool, single: dict[str, str], name: str
) -> None:
    setting, write_and_count = WRITE_AND_COUNT[name]
    before = tool.pids()
    count = await write_and_count(single[setting])
    if name == "mongodb":
        await asyncio.sleep(1.5)  # the stand-in writes its file once a second
    tool.kill(name)
    assert tool.start() == single
    after = tool.pids()
    assert {other for other in SINGLE if after[other] != before[other]} == {name}
    survived = 0 if name == "redis" else count  # a cache keeps nothing
    assert await write_and_count(single[setting]) == survived + 1


async def test_a_frozen_server_is_seen_and_woken(tool: Tool, single: dict[str, str]) -> None:
    before = tool.pids()
    tool.kill("redis", signal.SIGSTOP)
    seen = tool.nodes()["redis"]
    assert (seen["running"], seen["frozen"], seen["answers"]) == (True, True, False)
    tool.start()
    assert tool.pids() == before
    assert tool.nodes()["redis"]["answers"] is True


async def test_two_starts_at_once_start_everything_once(tool: Tool, single: dict[str, str]) -> None:
    tool.kill("redis")
    tool.kill("postgres")
    both = await asyncio.gather(asyncio.to_thread(tool.start), asyncio.to_thread(tool.start))
    assert both == [single, single]
    assert all(node["answers"] for node in tool.nodes().values())


async def test_stop_keeps_the_data(tool: Tool, single: dict[str, str]) -> None:
    url = single["IOTFLOW_REGISTRY__URL"]
    count = await write_and_count_postgres(url)
    pids = tool.pids()
    assert tool.run("stop").returncode == 0
    assert tool.nodes() == {}
    assert not [pid for pid in pids.values() if is_there(pid)]
    assert tool.start() == single
    assert await write_and_count_postgres(url) == count + 1


async def test_a_fresh_start_removes_the_data(tool: Tool, single: dict[str, str]) -> None:
    await write_and_count_postgres(single["IOTFLOW_REGISTRY__URL"])
    tool.start("--fresh", "postgres")
    assert await write_and_count_postgres(single["IOTFLOW_REGISTRY__URL"]) == 1


async def test_a_broken_server_is_told_with_its_last_words(
    tool: Tool, single: dict[str, str]
) -> None:
    version = Path(tool.nodes()["postgres"]["data"]) / "PG_VERSION"
    right = version.read_text()
    assert tool.run("stop", "postgres").returncode == 0
    version.write_text("9.1\n")
    done = tool.run("start")
    version.write_text(right)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "postgres ended while it was starting" in done.stderr
    assert "database files are incompatible with server" in done.stderr
    assert tool.start() == single


async def test_the_commit_log_can_be_synced_at_ease_for_a_benchmark(
    tool: Tool, single: dict[str, str]
) -> None:
    setting = "SELECT value FROM system_views.settings WHERE name = 'commitlog_sync'"
    url = single["IOTFLOW_TELEMETRY__URL"]
    assert (await cql(url, setting))[0].value == "batch"
    tool.start("cassandra", "--commitlog-sync", "periodic")
    assert (await cql(url, setting))[0].value == "periodic"
    tool.start("cassandra")
    assert (await cql(url, setting))[0].value == "batch"


async def new_primary(sentinel: Sentinel, old: tuple[str, int]) -> tuple[str, int]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(MasterNotFoundError):  # they see it dead, and vote
            primary: tuple[str, int] = await sentinel.discover_master("iotflow")
            if primary != old:
                return primary
        await asyncio.sleep(0.2)
    raise AssertionError("no failover within 20 s")


async def test_sentinels_move_the_primary_and_the_dead_one_comes_back(tool: Tool) -> None:
    url = tool.start("redis-sentinel")["IOTFLOW_CACHE__URL"]
    hosts = url.removeprefix("redis+sentinel://").partition("/")[0].split(",")
    addresses = [(host, int(port)) for host, port in (each.split(":") for each in hosts)]
    async with contextlib.AsyncExitStack() as stack:
        sentinel = Sentinel(addresses, socket_timeout=1)
        for each in sentinel.sentinels:
            stack.push_async_callback(each.aclose)
        first = await sentinel.discover_master("iotflow")
        async with sentinel.master_for("iotflow") as primary:
            await primary.set("kept", "1")
            assert await primary.wait(1, 5000) == 1
        tool.kill("redis-sentinel-primary")
        second = await new_primary(sentinel, first)
        tool.start("redis-sentinel")  # returns when the old one follows the new one
        assert await sentinel.discover_master("iotflow") == second
        async with sentinel.master_for("iotflow") as primary:
            assert await primary.get("kept") == b"1"
            assert (await primary.info("replication"))["connected_slaves"] == 1
    assert tool.run("stop", "redis-sentinel").returncode == 0


async def test_a_cluster_spreads_its_keys_and_a_dead_master_comes_back(tool: Tool) -> None:
    url = tool.start("redis-cluster")["IOTFLOW_CACHE__URL"]
    first = url.removeprefix("redis+cluster://").partition(",")[0]
    async with RedisCluster.from_url(f"redis://{first}") as redis:
        for number in range(50):
            await redis.set(f"key-{number}", number)
        sizes = [await redis.dbsize(target_nodes=node) for node in redis.get_primaries()]
    assert len(sizes) == 3
    assert min(sizes) > 0
    before = tool.pids("redis-cluster-1", "redis-cluster-3")
    tool.kill("redis-cluster-2")
    tool.start("redis-cluster")
    assert tool.pids("redis-cluster-1", "redis-cluster-3") == before
    async with RedisCluster.from_url(f"redis://{first}") as redis:
        for number in range(50):
            await redis.set(f"key-{number}", number)
    assert tool.run("stop", "redis-cluster").returncode == 0


async def rows_at(url: str) -> int:
    connection = await asyncpg.connect(url, timeout=10)
    count: int = await connection.fetchval("SELECT count(*) FROM seen")
    await connection.close()
    return count


async def test_a_standby_has_every_commit_when_the_primary_dies(tool: Tool) -> None:
    url = tool.start("postgres-standby")["IOTFLOW_REGISTRY__URL"]
    count = await write_and_count_postgres(url)
    tool.kill("postgres-primary")
    standby = tool.nodes()["postgres-standby"]
    at_standby = f"postgresql://iotflow:iotflow@127.0.0.1:{standby['port']}/iotflow"
    deadline = time.monotonic() + 10
    while await rows_at(at_standby) != count:  # it has them on disk, and shows them soon
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    tool.start("postgres-standby")
    assert await write_and_count_postgres(url) == count + 1
    assert tool.run("stop", "postgres-standby").returncode == 0


async def test_a_ring_of_three_goes_on_without_one_and_takes_it_back(tool: Tool) -> None:
    url = tool.start("cassandra-ring")["IOTFLOW_TELEMETRY__URL"]
    count = await write_and_count_cassandra(url)
    ring = [f"cassandra-ring-{number}" for number in (1, 2, 3)]
    before = tool.pids(*ring)
    tool.kill(ring[2])
    assert await write_and_count_cassandra(url) == count + 1
    done = tool.run("restart-node", ring[2])
    assert done.returncode == 0, done.stderr
    tool.start("cassandra-ring")  # returns when every node reaches every replica
    (row,) = await cql(url, "SELECT count(*) AS n FROM probe.seen WHERE k = 1", consistency="ALL")
    assert row.n == count + 1
    after = tool.pids(*ring)
    assert {name for name in ring if after[name] != before[name]} == {ring[2]}
    assert tool.run("stop", "cassandra-ring").returncode == 0
