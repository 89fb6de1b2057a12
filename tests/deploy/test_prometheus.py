"""The alerts: promtool understands them, and every metric in them is one that the service has."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DIRECTORY = ROOT / "deploy" / "prometheus"
_METRIC = re.compile(r"\biotflow_[a-z0-9_]+")
_SUFFIX = re.compile(r"_(bucket|count|sum|total)$")


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((DIRECTORY / "alerts.yaml").read_text("utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def exported() -> set[str]:
    """Every name of a metric that stands in the source, without what Prometheus adds to it."""
    found: set[str] = set()
    for path in (ROOT / "src" / "iotflow").rglob("*.py"):
        found |= set(re.findall(r'"(iotflow_[a-z0-9_]+)"', path.read_text("utf-8")))
    return found


def used(text: str) -> set[str]:
    return {_SUFFIX.sub("", name) for name in _METRIC.findall(text)}


def test_every_metric_of_an_alert_is_one_of_the_services() -> None:
    names = set[str]().union(*(used(rule["expr"]) for rule in rules()))
    assert len(names) > 20
    assert names - exported() == set()


def test_every_metric_of_the_page_is_one_of_the_services() -> None:
    assert used((DIRECTORY / "README.md").read_text("utf-8")) - exported() == set()


def test_every_alert_says_how_bad_it_is_and_what_is_wrong() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "warning", "info"), rule["alert"]
        assert rule["annotations"]["summary"], rule["alert"]
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)


@pytest.mark.tools
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "alerts.yaml"),
        ("check", "config", "prometheus.yaml"),
        ("test", "rules", "alerts-test.yaml"),
    ],
    ids=" ".join,
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "deploy/tools/install.sh installs it"
    done = subprocess.run(
        [promtool, *arguments],
        cwd=DIRECTORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
