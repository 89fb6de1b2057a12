"""`iotflow bench` on real servers, with slices too short to say anything."""

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest

from tests.process.conftest import environment
from tests.process.test_bench import SHORT, bench, outputs, read
from tests.servers.stores import four_stores, postgres_only

pytestmark = pytest.mark.servers

SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'iotflow_bench_%'"


def schemas(url: str) -> list[str]:
    """The naive systems' schemas in a database."""

    async def ask() -> list[str]:
        connection = await asyncpg.connect(url)
        try:
            return [row["nspname"] for row in await connection.fetch(SCHEMAS)]
        finally:
            await connection.close()

    return asyncio.run(ask())


def test_all_systems_side_by_side(tmp_path: Path) -> None:
    systems = ("--systems", "configured,postgres,naive", "--connections", "2", "--warm-up", "0.5")
    rows = ("--open-load", "0", "--rows", "steady,latest,validation")
    with four_stores() as settings:
        bench(tmp_path, *SHORT, *systems, *rows, *outputs(tmp_path), **settings)
        assert schemas(settings["IOTFLOW_REGISTRY__URL"]) == []
    table = read(tmp_path)
    measured = {(it["system"], it["name"]): it for it in table["lines"]}
    assert all(it["failures"] == {} for it in measured.values())
    for system in ("configured", "postgres", "naive"):
        assert measured[system, "latest"]["rate"] > 0
        stores = set(measured[system, "steady"]["memory_bytes"]) - {"server", "generator"}
        four = {"postgresql", "cassandra", "redis", "mongodb"}
        assert stores == (four if system == "configured" else {"postgresql"})
    validations = {(it["system"], it["cache"]): it["rate"] for it in table["validations"]}
    assert set(validations) == {
        ("configured", "warm"), ("configured", "cold"), ("postgres", "warm"),
        ("postgres", "cold"), ("naive", "none"),
    }  # fmt: skip
    assert all(rate > 0 for rate in validations.values())


def test_every_row_of_the_naive_system(tmp_path: Path) -> None:
    with postgres_only() as settings:
        bench(
            tmp_path, *SHORT, "--systems", "naive", "--connections", "2", "--open-load", "0",
            "--rows", "submit,history,credentials", *outputs(tmp_path), **settings,
        )  # fmt: skip
    rates = {it["name"]: it["rate"] for it in read(tmp_path)["lines"] if it["system"] == "naive"}
    assert set(rates) == {"submit", "history", "credentials"}
    assert all(rate > 0 for rate in rates.values())


def test_curves_of_the_four_stores(tmp_path: Path) -> None:
    limits = ("--systems", "configured", "--connections", "2", "--warm-up", "0")
    with four_stores() as settings:
        bench(
            tmp_path, "scale", *SHORT, *limits, "--rows", "batches", *outputs(tmp_path),
            **settings,
        )  # fmt: skip
    (curve,) = read(tmp_path)["curves"]
    assert [mark["x"] for mark in curve["marks"]] == [1, 10, 100, 1000, 5000]
    assert all(mark["failures"] == {} for mark in curve["marks"])
    assert curve["marks"][0]["ratio"] > 0


def test_a_run_that_is_ended_leaves_no_schema_and_no_server(tmp_path: Path) -> None:
    with postgres_only() as settings:
        url = settings["IOTFLOW_REGISTRY__URL"]
        process = subprocess.Popen(
            [sys.executable, "-m", "iotflow.cli.main", "bench", "--systems", "naive"],
            env=environment(tmp_path / "unused", 0, TMPDIR=str(tmp_path), **settings),
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _await_naive_server(url, tmp_path)
            children = _descendants(process.pid)
            assert len(children) >= 3
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 128 + signal.SIGTERM
        finally:
            process.kill()
            process.wait()
        assert schemas(url) == []
        assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def _await_naive_server(url: str, scratch: Path) -> None:
    deadline = time.monotonic() + 60
    while not (schemas(url) and list(scratch.glob("iotflow-bench-*/naive.log"))):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [each for child in children for each in (int(child), *_descendants(int(child)))]
