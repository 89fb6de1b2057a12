"""Whose processes the benchmark looks at, and what they use, on this machine and a made-up one."""

import os
import socket
from pathlib import Path

import pytest

from iotflow.cli.bench.store_processes import addresses, store_processes
from iotflow.cli.bench.usage import usage_of

TICK, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


def process(
    proc: Path, pid: int, ticks: tuple[int, int, int, int], pages: int, pss_kb: int
) -> Path:
    """A process as /proc shows it: its own ticks (user, system), those of children that ended."""
    directory = proc / str(pid)
    (directory / "task" / str(pid)).mkdir(parents=True)
    fields = ["S", "1", *["0"] * 9, *map(str, ticks), *["0"] * 6, str(pages)]
    (directory / "stat").write_text(f"{pid} (a name) with) {' '.join(fields)}")
    (directory / "smaps_rollup").write_text(f"Rss: 999999 kB\nPss:   {pss_kb} kB\n")
    (directory / "task" / str(pid) / "children").write_text("")
    return directory


class TestUsage:
    def test_counts_a_process_and_the_children_that_ended(self, tmp_path: Path) -> None:
        process(tmp_path, 7, (100, 20, 3, 4), pages=5, pss_kb=1)
        usage = usage_of({7}, tmp_path)
        assert usage is not None
        assert (usage.cpu_s, usage.rss_bytes) == (127 / TICK, 5 * PAGE)

    def test_counts_what_a_family_shares_once(self, tmp_path: Path) -> None:
        parent = process(tmp_path, 7, (1, 0, 0, 0), pages=1000, pss_kb=100)
        process(tmp_path, 8, (2, 0, 0, 0), pages=1000, pss_kb=30)
        (parent / "task" / "7" / "children").write_text("8 ")
        usage = usage_of({7, 8}, tmp_path)
        assert usage is not None
        assert (usage.cpu_s, usage.rss_bytes) == (3 / TICK, 130 * 1024)

    def test_is_nothing_for_what_is_gone(self, tmp_path: Path) -> None:
        assert usage_of({7}, tmp_path) is None


class TestAddresses:
    @pytest.mark.parametrize(
        ("url", "found"),
        [
            ("postgresql://u:p%40@127.0.0.1:15432/d", [("127.0.0.1", 15432)]),
            (
                "cassandra://127.0.0.1:9043,127.0.0.2/k?a=b",
                [("127.0.0.1", 9043), ("127.0.0.2", 9042)],
            ),
            ("redis+sentinel://127.0.0.1/main", [("127.0.0.1", 26379)]),
            ("rediss://[::1]:6380/0", [("::1", 6380)]),
            ("sqlite:///data/x.db", []),
            ("memory://", []),
            ("mongodb://no.such.host.invalid/x", []),
        ],
    )
    def test_are_where_a_url_points(self, url: str, found: list[tuple[str, int]]) -> None:
        assert addresses(url) == found


class TestListeners:
    @pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "127.0.0.3"])
    def test_a_store_is_who_listens_where_its_url_points(self, host: str) -> None:
        with socket.create_server((host, 0)) as server:
            port = server.getsockname()[1]
            at = "127.0.0.1" if host == "0.0.0.0" else host
            found = store_processes([f"redis://{at}:{port}/0", f"redis://{at}:{port}/1"])
            assert found == {"redis": {os.getpid()}}

    def test_another_address_s_port_is_someone_else_s(self) -> None:
        with socket.create_server(("127.0.0.3", 0)) as server:
            port = server.getsockname()[1]
            assert store_processes([f"rediss://127.0.0.4:{port}"]) == {}
            assert store_processes([f"rediss://127.0.0.3:{port}"]) == {"redis": {os.getpid()}}

    def test_a_mapped_address_is_found_too(self) -> None:
        with socket.socket(socket.AF_INET6) as server:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            server.bind(("::ffff:127.0.0.3", 0))
            server.listen()
            found = store_processes([f"mongodb://127.0.0.3:{server.getsockname()[1]}/x"])
            assert found == {"mongodb": {os.getpid()}}
