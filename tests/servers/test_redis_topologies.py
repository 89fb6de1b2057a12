"""The Redis cache behind Sentinel, on a Cluster whose slots move, over TLS and with passwords."""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot

from iotflow.domain.points import LatestPoint, Point, Submission, Value
from iotflow.errors import StoreUnavailableError
from iotflow.stores.cache.protocol import Hit
from iotflow.stores.cache.redis import RedisCache
from iotflow.stores.cache.redis.codec import latest_key
from iotflow.stores.cache.ttls import CacheTtls
from tests.contract.cache_adapters import SteppedEpoch, running, until
from tests.servers.redis_server import RedisServer, free_port

pytestmark = pytest.mark.servers

_devices = count(1)
_SLOTS = 16384


def submission(device: int, mark: int) -> Submission:
    return Submission(device, 1, (Point(mark, "t", mark),), mark)


async def complete(cache: RedisCache, device: int) -> None:
    ticket = (await cache.begin_fill([device]))[device]
    assert await cache.fill_latest(device, (), ticket)


async def value(cache: RedisCache, device: int) -> Value:
    (point,) = (await cache.latest([device]))[device]
    return point.value


async def persist(attempt: Callable[[], Any], limit_s: float = 15) -> None:
    """Try again until it works."""
    async with asyncio.timeout(limit_s):
        while True:
            try:
                await attempt()
            except StoreUnavailableError:
                await asyncio.sleep(0.05)
            else:
                return


@contextmanager
def stopping(servers: list[RedisServer]) -> Iterator[list[RedisServer]]:
    try:
        yield servers
    finally:
        for server in servers:
            server.stop()


class TestSentinel:
    @pytest.fixture
    def servers(self, tmp_path: Path) -> Iterator[list[RedisServer]]:
        primary = RedisServer(tmp_path / "primary")
        replica = RedisServer(tmp_path / "replica", {"replicaof": f"127.0.0.1 {primary.port}"})
        sentinel = RedisServer(tmp_path / "sentinel", port=free_port())
        sentinel.directory.mkdir()
        configuration = sentinel.directory / "sentinel.conf"
        configuration.write_text(
            f"sentinel monitor iotflow 127.0.0.1 {primary.port} 1\n"
            "sentinel down-after-milliseconds iotflow 500\n"
            "sentinel failover-timeout iotflow 5000\n"
        )
        sentinel.arguments = (str(configuration), "--sentinel")
        sentinel.options["save"] = ""
        with stopping([primary, replica, sentinel]) as servers:
            primary.start()
            replica.start()
            replica.wait_for(
                lambda: replica.client.info("replication")["master_link_status"] == "up"
            )
            sentinel.start()
            sentinel.wait_for(
                lambda: sentinel.client.execute_command("SENTINEL", "REPLICAS", "iotflow")
            )
            yield servers

    async def test_it_goes_on_with_the_new_primary_by_itself(
        self, servers: list[RedisServer]
    ) -> None:
        primary, replica, sentinel = servers
        epoch, device = SteppedEpoch(), next(_devices)
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/iotflow"
        cache = RedisCache(url, CacheTtls(), epoch)
        async with running(cache):
            await complete(cache, device)
            await cache.record(submission(device, 1), ())
            doubts = epoch.doubts
            primary.kill()
            with pytest.raises(StoreUnavailableError):
                await cache.record(submission(device, 2), ())
            await persist(lambda: cache.record(submission(device, 3), ()))
            assert replica.client.info("replication")["role"] == "master"
            assert epoch.doubts > doubts  # the new primary may lack the last writes
            assert await cache.latest([device]) == {}
            await until(lambda: cache.doubted == 0 and cache.hears, limit_s=10)
            await complete(cache, device)
            await cache.record(submission(device, 4), ())
            found = await cache.latest([device])
            assert list(found[device]) == [LatestPoint(4, "t", 4, "", 4)]

    async def test_a_service_that_the_sentinel_does_not_know_is_unavailable(
        self, servers: list[RedisServer]
    ) -> None:
        url = f"redis+sentinel://127.0.0.1:{servers[2].port}/another"
        cache = RedisCache(url, CacheTtls(), SteppedEpoch())
        with pytest.raises(StoreUnavailableError):
            await cache.open()
        await cache.close()


class TestCluster:
    @pytest.fixture
    def nodes(self, tmp_path: Path) -> Iterator[list[RedisServer]]:
        """Two primaries that share the slots."""
        nodes = []
        for name in ("one", "other"):
            options = {"cluster-enabled": "yes", "cluster-node-timeout": "1000"}
            options["cluster-port"] = str(free_port())
            nodes.append(RedisServer(tmp_path / name, options))
        with stopping(nodes):
            for node, slots in zip(nodes, [(0, 8191), (8192, _SLOTS - 1)], strict=True):
                node.start()
                node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
            one, other = nodes
            one.client.execute_command(
                "CLUSTER", "MEET", "127.0.0.1", other.port, other.options["cluster-port"]
            )
            for node in nodes:
                node.wait_for(partial(self.knows_all, node))
            yield nodes

    @staticmethod
    def knows_all(node: RedisServer) -> bool:
        info = node.client.execute_command("CLUSTER", "INFO").decode()
        return "cluster_state:ok" in info and f"cluster_slots_ok:{_SLOTS}" in info

    async def test_a_slot_that_moves_is_followed(self, nodes: list[RedisServer]) -> None:
        device = next(each for each in _devices if key_slot(latest_key(each).encode()) < 8192)
        slot = key_slot(latest_key(device).encode())
        one, other = nodes
        ids = [node.client.execute_command("CLUSTER", "MYID").decode() for node in nodes]
        hit = Hit(f"ingest:device:{device}", 600, 1)
        cache = RedisCache(f"redis+cluster://127.0.0.1:{one.port}", CacheTtls(), SteppedEpoch())
        async with running(cache):
            await complete(cache, device)
            await cache.record(submission(device, 1), [hit])
            # Half moved: what is there no more is asked for at the other (ASK).
            other.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
            one.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
            keys = one.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100)
            one.client.execute_command(
                "MIGRATE", "127.0.0.1", other.port, "", 0, 5000, "KEYS", *keys
            )
            assert await value(cache, device) == 1
            # All moved: it is told so once (MOVED), and goes there from then on.
            for node in (other, one):
                node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
            (counted,) = await cache.record(submission(device, 2), [hit])
            assert counted.previous + counted.current == 2  # counted once each
            assert await value(cache, device) == 2
            await asyncio.sleep(0.5)  # the slots have been asked for anew
            before = one.client.info("stats")["total_error_replies"]
            await cache.record(submission(device, 3), [hit])
            assert one.client.info("stats")["total_error_replies"] == before

    async def test_a_primary_that_dies_spares_the_devices_of_the_other(
        self, nodes: list[RedisServer]
    ) -> None:
        one, other = nodes
        for node in nodes:
            node.client.config_set("cluster-require-full-coverage", "no")
        here, there = (
            next(each for each in _devices if (key_slot(latest_key(each).encode()) < 8192) is low)
            for low in (True, False)
        )
        epoch = SteppedEpoch()
        url = f"redis+cluster://127.0.0.1:{one.port},127.0.0.1:{other.port}"
        cache = RedisCache(url, CacheTtls(), epoch)
        async with running(cache):
            await complete(cache, here)
            await complete(cache, there)
            doubts = epoch.doubts
            other.kill()
            for mark in range(2, 30):
                await cache.record(submission(here, mark), ())
                with pytest.raises(StoreUnavailableError):
                    await cache.record(submission(there, mark), ())
                await asyncio.sleep(0.02)
            assert epoch.doubts > doubts
            other.start()
            await persist(lambda: cache.record(submission(there, 40), ()))


class TestSecured:
    async def test_password_and_database_are_the_urls(self, tmp_path: Path) -> None:
        server = RedisServer(tmp_path / "redis", {"requirepass": "s3cret@/"})
        server.start()
        try:
            good = f"redis://:s3cret%40%2F@127.0.0.1:{server.port}/3"
            async with running(cache := RedisCache(good, CacheTtls(), SteppedEpoch())):
                await cache.mark_online(1)
            assert set(server.client.info("keyspace")) == {"db3"}
            for bad in ("", ":wrong@"):
                cache = RedisCache(
                    f"redis://{bad}127.0.0.1:{server.port}", CacheTtls(), SteppedEpoch()
                )
                with pytest.raises(StoreUnavailableError):
                    await cache.open()
        finally:
            server.stop()

    async def test_tls_is_checked(self, tmp_path: Path) -> None:
        certificate, key = self.make_certificate(tmp_path)
        server = RedisServer(
            tmp_path / "redis",
            {
                "tls-port": str(free_port()),
                "tls-cert-file": certificate,
                "tls-key-file": key,
                "tls-ca-cert-file": certificate,
                "tls-auth-clients": "no",
            },
        )
        server.start()
        port = server.options["tls-port"]
        try:
            good = f"rediss://localhost:{port}?tls_ca={certificate}"
            async with running(cache := RedisCache(good, CacheTtls(), SteppedEpoch())):
                await cache.record(submission(1, 1), ())
                assert await cache.online([1]) == {1}
            stranger = RedisCache(f"rediss://localhost:{port}", CacheTtls(), SteppedEpoch())
            with pytest.raises(StoreUnavailableError):
                await stranger.open()
        finally:
            server.stop()

    @staticmethod
    def make_certificate(directory: Path) -> tuple[str, str]:
        certificate, key = directory / "cert.pem", directory / "key.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=DNS:localhost"),
            ],
            check=True,
            capture_output=True,
        )
        return str(certificate), str(key)
