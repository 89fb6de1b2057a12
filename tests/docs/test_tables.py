"""The tables of the pages are those of the source."""

import ast
import re
from pathlib import Path
from typing import Any

import annotated_types
from pydantic import BaseModel

from iotflow.accounts.grants import MAX_FORM_BYTES
from iotflow.app import MAX_BODY_BYTES
from iotflow.devices.config_bodies import MAX_CONFIG_BYTES
from iotflow.devices.schemas import MAX_BULK
from iotflow.domain.json_levels import MAX_LEVELS
from iotflow.events.schemas import EventParameters
from iotflow.groups.schemas import MAX_BULK as MAX_GROUP_BULK
from iotflow.http.connections import _MAX_PIPELINED
from iotflow.stores.registry.sql_keys import MAX_LIVE_KEYS
from iotflow.telemetry import decoding
from iotflow.telemetry.batch import MAX_EVENT_METADATA_BYTES
from iotflow.telemetry.ranges import MAX_DAYS
from iotflow.telemetry.router import _MAX_GROUP_DEVICES, _MAX_USER_DEVICES
from iotflow.telemetry.schemas import (
    AggregateParameters,
    HistoryParameters,
    LatestManyParameters,
)
from iotflow.telemetry.verdicts import MAX_NAME_LENGTH, MAX_TEXT_BYTES, MAX_UNIT_LENGTH
from iotflow.telemetry.windows import MAX_WINDOWS
from tests.docs.pages import DOCS
from tests.docs.sources import codes, settings

ROOT = DOCS.parent
_ROW = re.compile(r"^\|(.*)\|$", re.M)
_CODED = re.compile(r"`([a-z_0-9]+)`")
_RATE = re.compile(r"\d+/\d+")
_BOUND = re.compile(
    r"__MAX_(?!AGE_)\w+$|BUDGET$|__EVENT_QUEUE$|_QUOTAS__|_SERVER__(HEADER|REQUEST)_S$"
)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows(page: str) -> list[list[str]]:
    text = (DOCS / page).read_text("utf-8")
    return [[cell.strip() for cell in row.split("|")] for row in _ROW.findall(text)]


def documented_codes() -> set[str]:
    """The codes of the first column that has any: the second of answers, the first of fields."""
    found: set[str] = set()
    for row in rows("errors.md"):
        cell = row[1] if len(row) == 3 else row[0]
        found |= set(_CODED.findall(cell))
    return found


def test_every_code_has_its_cure() -> None:
    assert codes() - documented_codes() == set()


def test_no_code_is_listed_that_never_comes() -> None:
    assert documented_codes() - codes() == set()


def test_the_codes_are_found_in_the_source() -> None:
    """One of each way in which the source writes them."""
    ways = {
        "store_unavailable", "no_telemetry", "empty_range", "unknown_field", "not_finite",
        "text_too_long", "timestamp_in_future", "too_many_devices", "body_too_large", "empty_data",
    }  # fmt: skip
    assert ways <= codes()


def test_every_setting_is_there_with_its_default() -> None:
    documented = {row[0].strip("`"): row[1].strip("`") for row in rows("operating.md")}
    documented = {name: value for name, value in documented.items() if name.startswith("IOTFLOW_")}
    assert documented == settings()


def test_the_limits_are_the_defaults() -> None:
    limits = [row for row in rows("limits.md") if row[0].startswith("`IOTFLOW_")]
    assert limits
    for name, default, _ in limits:
        assert settings()[name.strip("`")] == default.strip("`"), name


def test_every_bound_that_can_be_set_is_a_limit() -> None:
    named = {row[0].strip("`") for row in rows("limits.md") if row[0].startswith("`IOTFLOW_")}
    bounds = {
        name for name, value in settings().items() if _RATE.fullmatch(value) or _BOUND.search(name)
    }
    assert named == bounds


def test_the_fixed_sizes_are_those_of_the_source() -> None:
    sizes = rows("limits.md")
    begin = max(place for place, row in enumerate(sizes) if row == ["", ""])
    assert {row[0]: row[1] for row in sizes[begin + 2 :]} == fixed_sizes()


def fixed_sizes() -> dict[str, str]:
    points = most(HistoryParameters, "limit")
    devices = most(LatestManyParameters, "device_id")
    assert devices == _MAX_GROUP_DEVICES
    assert MAX_GROUP_BULK == MAX_BULK
    assert most(AggregateParameters, "points") == MAX_WINDOWS
    return {
        "measurements in a submission": f"{decoding.MAX_MEASUREMENTS}",
        "records, points in a batch": f"{decoding.MAX_RECORDS:,}, {decoding.MAX_POINTS:,}",
        "name, text, unit": (
            f"{MAX_NAME_LENGTH} characters, {kib(MAX_TEXT_BYTES)}, {MAX_UNIT_LENGTH} characters"
        ),
        "metadata, configuration": f"{kib(decoding.MAX_METADATA_BYTES)}, {kib(MAX_CONFIG_BYTES)}",
        "levels of JSON nested in each": f"{MAX_LEVELS}",
        "metadata of a batch in its event": (
            f"{kib(MAX_EVENT_METADATA_BYTES)} together; past it the event has `metadata_omitted`, "
            "the number of records that had some"
        ),
        "a form for a token": kib(MAX_FORM_BYTES),
        "other bodies": kib(MAX_BODY_BYTES),
        "items on a page, points on a page": f"{most(EventParameters, 'limit'):,}, {points:,}",
        "range of a query": f"{MAX_DAYS} days",
        "windows, points of a chart": f"{MAX_WINDOWS:,}",
        "devices in a call for latest values, in a bulk call": f"{devices}, {MAX_BULK:,}",
        "devices of a user in a call for all their points": (
            f"{_MAX_USER_DEVICES:,}; past it 422 `fleet_too_large`"
        ),
        "requests sent ahead of earlier answers, on a connection": (
            f"{_MAX_PIPELINED}; past it the connection is closed"
        ),
        "live keys of a device": f"{MAX_LIVE_KEYS}",
    }


def most(model: type[BaseModel], name: str) -> int:
    """The bound of a parameter."""
    bounds: list[Any] = []
    for each in model.model_fields[name].metadata:
        if isinstance(each, annotated_types.Le):
            bounds.append(each.le)
        if isinstance(each, annotated_types.MaxLen):
            bounds.append(each.max_length)
    (bound,) = bounds
    return int(bound)


def kib(size: int) -> str:
    return f"{size // 1024} KiB" if size < 2**20 else f"{size // 2**20} MiB"


def test_every_threat_has_a_test_that_is_there() -> None:
    threats = [row for row in rows("security.md") if len(row) == 3 and row[0] != "threat"]
    threats = [row for row in threats if not set(row[0]) <= {"-"}]
    assert len(threats) > 15
    for threat, _, shown in threats:
        named = _TEST.findall(shown)
        assert named, f"{threat}: no test"
        for path, name in named:
            assert name in functions(ROOT / path), f"{threat}: {path}::{name}"


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}
