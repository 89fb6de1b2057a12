"""`iotflow bench` as users run it, with slices too short to say anything, on embedded stores."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.process.conftest import environment

LONGEST_S = 240
SHORT = ("--seconds", "0.2", "--slices", "1", "--devices", "4")


def bench(
    directory: Path, *arguments: str, expect: int = 0, **settings: str
) -> "subprocess.CompletedProcess[str]":
    process = subprocess.Popen(
        [sys.executable, "-m", "iotflow.cli.main", "bench", *arguments],
        env=environment(directory / "unused", 0, **settings),
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        process.terminate()  # not killed: it has servers to end
        process.communicate()
        raise
    assert process.returncode == expect, stdout + stderr
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def outputs(directory: Path) -> tuple[str, ...]:
    return tuple(
        word
        for kind in ("json", "markdown", "svg")
        for word in (f"--{kind}", str(directory / kind))
    )


def read(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "json").read_text())
    ElementTree.parse(directory / "svg")
    return found


def test_a_table_of_the_embedded_system(tmp_path: Path) -> None:
    rows = "steady,latest,validation"
    done = bench(tmp_path, *SHORT, "--connections", "2,4", "--rows", rows, *outputs(tmp_path))
    table = read(tmp_path)
    measured = [(it["system"], it["name"], it["connections"]) for it in table["lines"]]
    assert sorted(measured) == [
        ("embedded", "latest", 2),
        ("embedded", "latest", 4),
        ("embedded", "steady", 4),
        ("yardstick", "echo", 2),
        ("yardstick", "echo", 4),
        ("yardstick", "plain", 2),
        ("yardstick", "plain", 4),
    ]
    for line in table["lines"]:
        assert line["failures"] == {}
        assert line["memory_bytes"]["server"] > 10_000_000
        assert line["cpu_shares"]["server"] > 0
        assert (line["rate"] is None) == (line["name"] == "steady")
        assert line["at_rate"] is not None
    latest = next(it for it in table["lines"] if it["name"] == "latest")
    assert latest["hit_rates"]["latest"] > 0.5
    assert [(it["system"], it["cache"]) for it in table["validations"]] == [
        ("embedded", "warm"),
        ("embedded", "cold"),
    ]
    warm, cold = table["validations"]
    assert warm["rate"] > cold["rate"] > 0
    assert "The generator's own ceiling" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert not (tmp_path / "unused").exists()  # all data are temporary


def test_curves_of_the_embedded_system(tmp_path: Path) -> None:
    rows = "points,devices"
    limits = ("--points", "10000", "--connections", "2")
    bench(tmp_path, "scale", *SHORT, *limits, "--rows", rows, *outputs(tmp_path))
    table = read(tmp_path)
    places = {it["name"]: [mark["x"] for mark in it["marks"]] for it in table["curves"]}
    assert places["history-points"] == places["submit-points"]
    assert 10_000 <= places["submit-points"][0] < 11_000
    assert places["submit-devices"] == places["credentials-devices"] == [4]
    for curve in table["curves"]:
        for mark in curve["marks"]:
            assert mark["failures"] == {}
            assert mark["rate"] > 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--systems", "mysql"), "there is no 'mysql'; choose from embedded, configured"),
        (("--rows", "nothing"), "there is no 'nothing'; choose from echo, plain, submit"),
        (("--systems", "postgres"), "needs a postgresql:// URL in IOTFLOW_REGISTRY__URL"),
        (("--connections", "many"), "--connections: whole numbers from 1 to 4,096"),
        (("scale", "--systems", "embedded,configured"), "--systems: scale takes one"),
        (("soak", "--systems", "embedded,configured"), "--systems: soak takes one"),
        (("scale", "--rows", "submit"), "there is no 'submit'; choose from points, devices"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_line(
    tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    done = bench(tmp_path, *arguments, expect=2)
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
